"""The methods of a search for unlearning losses: who proposes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.lang.expr import Expr
from evoloss.propose.proposer import Member, Proposer, Space
from evoloss.propose.unlearning import UnlearningEvolution, UnlearningRandom, UnlearningZoo

if TYPE_CHECKING:
    from evoloss.propose.llm import Endpoint

Makers = Mapping[str, Callable[[Space], Proposer]]
"""By the method's name: what makes a proposer that needs more than the space."""


def known_losses(retain: bool) -> dict[str, Expr]:
    """The known losses by name; their forget terms, if there is no retain set."""
    known = zoo.unlearning_losses(retain)
    return {name: zoo.loss_among(known, name) for name in known}


def makers(
    endpoint: Endpoint | None,
    say: Callable[[str], None],
    records: Iterable[Mapping[str, Any]] = (),
) -> Makers:
    """The proposers that ask a language model; what it leaves open is bred instead.

    endpoint: None makes none of them. records: what a search that is resumed has kept, which tell
    how much of a budget of tokens is spent.
    """
    if endpoint is None:
        return {}
    from evoloss.propose.llm import LLMProposer, usage_of
    from evoloss.propose.mixture import Mixture

    spent = usage_of(records)

    def alone(space: Space) -> Proposer:
        return LLMProposer(space, endpoint, say, fallback=UnlearningEvolution(space), spent=spent)

    def mixed(space: Space) -> Proposer:
        members: dict[str, Callable[[Space], Member]] = {
            "gp": UnlearningEvolution,
            "llm": lambda own: LLMProposer(own, endpoint, say, spent=spent),
        }
        return Mixture(space, members)

    return {"llm": alone, "mixture": mixed}


def proposer(method: str, space: Space, makers: Makers | None = None) -> Proposer:
    """The proposer of a method."""
    if makers and method in makers:
        return makers[method](space)
    if method in ("llm", "mixture"):
        raise UserError(f"method '{method}' needs an endpoint: give --llm-url and --llm-model")
    if method == "zoo":
        return UnlearningZoo(space)
    if method == "random":
        return UnlearningRandom(space)
    return UnlearningEvolution(space)
