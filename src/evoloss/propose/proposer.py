"""What every proposer offers: it is asked for a generation of losses and told how they fared.

A proposer never evaluates and never touches a file. What it asks may depend on what it was told
and on the generators it is given, so telling it the stored generations brings it back to where a
broken-off search stood.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evoloss.lang.expr import Expr, inputs_of
from evoloss.lang.types import MASKS, SUPERVISED, Output, Signature, unlearning_signature


@dataclass(frozen=True)
class Individual:
    """A member of the population. error: lower is better; None or not finite is the worst.

    epochs, rate: of its training, where they are part of what is searched. operator: how it was
    made; parents: ids of those it was made from. reason: why it was dropped, empty if it was not.
    details: what training it told besides the error, as plain data: `metrics` by name, some of them
    as they were `at_rung` where it was raced out, and `curve`, pairs of a step and a value.
    """

    id: int
    expression: Expr
    error: float | None
    epochs: int | None = None
    operator: str = ""
    parents: tuple[int, ...] = ()
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0


@dataclass(frozen=True)
class Proposal:
    """A loss to try, how it was made, and the ids of the individuals it was made from.

    epochs: how long to train with it, where that is part of what is searched; rate: a multiple of
    the learning rate.
    """

    expression: Expr
    operator: str
    parents: tuple[int, ...] = ()
    epochs: int | None = None
    rate: float = 1.0


RandomOf = Callable[[int], np.random.Generator]
"""The generator of a slot of a generation."""


class Avoid(Protocol):
    """Whether an expression was seen before, with a training like this."""

    def __call__(self, expr: Expr, epochs: int | None = None, rate: float = 1.0, /) -> bool: ...


Keep = Callable[[Mapping[str, Any]], None]
"""Takes a record, plain JSON data, of the generation that is being asked for."""


@dataclass(frozen=True)
class Goal:
    """What is searched for, in words for who is shown what was measured.

    name: of the objective, of which higher is better; an error is its negative. meanings: what
    measurements of such names are, the most important first. curve: what learning curves show.
    """

    name: str = "score"
    meanings: Callable[[Collection[str]], Mapping[str, str]] = lambda names: dict.fromkeys(
        names, ""
    )
    curve: str = "the score"


@dataclass(frozen=True)
class Space:
    """What is searched and how much at a time.

    population: losses in a generation; parsimony, retries: see `GPSettings`; usual: the task's
    usual loss; seeded: whether to start from it; output: the transform that makes f.
    random: the generator of a generation's slot; avoid: tells what was seen before.
    signature: what the losses are functions of. known: other losses to start from.
    most_epochs: how many epochs a proposal may ask for; None where that is not searched.
    keep: stores what a proposer wants remembered, with the generation.
    save: stores what must outlive a killed process, such as a reply that was paid for, at once.
    saved: what a search that was broken off had saved of a generation that it did not finish.
    goal: what is searched for, as it is told to a language model.
    """

    population: int
    parsimony: float
    retries: int
    usual: Expr
    seeded: bool
    output: Output
    random: Callable[[int, int], np.random.Generator]
    avoid: Avoid
    signature: Signature = SUPERVISED
    known: tuple[Expr, ...] = ()
    most_epochs: int | None = None
    keep: Keep = lambda record: None
    save: Keep = lambda record: None
    saved: Sequence[Mapping[str, Any]] = ()
    goal: Goal = Goal()

    def signature_of(self, *parents: Expr) -> Signature:
        """What children of such losses are functions of: of tokens, if a parent has masks."""
        masks = MASKS - self.signature.inputs.keys()
        masked = any(inputs_of(each) & masks for each in parents)
        if not masked:
            return self.signature
        retain = "log_probs_retain" in self.signature.inputs
        return unlearning_signature(tokens=True, retain=retain)


class Proposer(Protocol):
    """Ask and tell, in turn, generation by generation.

    One whose state follows from the last few generations alone may say of how many in an attribute
    `looks_back`: a resumed search then tells it no more than those.
    """

    def ask(self, generation: int) -> Sequence[Proposal]:
        """The losses of a generation, at most `population` of them; none ends the search."""

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """How the losses of that generation fared, in the order they were asked."""


class Member(Proposer, Protocol):
    """A proposer that can share its generations with others, as in `Mixture`.

    It is told of everybody's losses, and learns from those of others as from its own.
    """

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """At most `count` losses; the whole population if that is None."""
