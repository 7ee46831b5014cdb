"""The language model that proposes losses, as the options or a stored run name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evoloss.errors import UserError

if TYPE_CHECKING:
    from evoloss.propose.llm import Endpoint


def endpoint_of(
    url: str | None, model: str | None, two_phase: bool, **options: Any
) -> Endpoint | None:
    """Of the proposers that ask a language model; None if none is named.

    options: of the endpoint, where they are known.
    """
    if url is None and model is None:
        return None
    if not url or not model:
        raise UserError("a language model needs both --llm-url and --llm-model")
    from evoloss.propose.llm import Endpoint

    return Endpoint(url, model, two_phase=two_phase, **options)


def check_asked(asks: bool, **options: Any) -> None:
    """Raises: UserError for an option of a language model that nobody asks.

    options: by name; None, False and 0 stand for ones not given.
    """
    for name, value in options.items():
        if value and not asks:
            raise UserError(
                f"--{name.replace('_', '-')} is given, but no language model is asked: leave it "
                "out, or make the proposer llm or mixture"
            )


def limited(endpoint: Endpoint | None, settings: Mapping[str, Any]) -> Endpoint | None:
    """The endpoint, held to the search's own budgets of tokens and cost."""
    if endpoint is None:
        return None
    tokens, cost = settings.get("max_tokens"), settings.get("max_cost")
    if cost is not None and not (endpoint.input_price or endpoint.output_price):
        raise UserError(
            f"--max-cost {cost:g} needs prices: search with --llm-input-price and "
            "--llm-output-price, of a million tokens"
        )
    both = [each for each in (endpoint.max_total_tokens, tokens) if each is not None]
    return replace(endpoint, max_total_tokens=min(both, default=None), max_cost=cost)


def stored_endpoint(about: Mapping[str, Any]) -> Endpoint | None:
    """The one that a run was begun with, if it had one."""
    if not about.get("endpoint"):
        return None
    from evoloss.propose.llm import Endpoint

    return Endpoint(**about["endpoint"])
