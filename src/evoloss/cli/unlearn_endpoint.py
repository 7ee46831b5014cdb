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


def limited(endpoint: Endpoint | None, settings: Mapping[str, Any]) -> Endpoint | None:
    """The endpoint, held to the search's own budgets of tokens and cost."""
    if endpoint is None:
        return None
    tokens, cost = settings.get("max_tokens"), settings.get("max_cost")
    both = [each for each in (endpoint.max_total_tokens, tokens) if each is not None]
    return replace(endpoint, max_total_tokens=min(both, default=None), max_cost=cost)


def stored_endpoint(about: Mapping[str, Any]) -> Endpoint | None:
    """The one that a run was begun with, if it had one."""
    if not about.get("endpoint"):
        return None
    from evoloss.propose.llm import Endpoint

    return Endpoint(**about["endpoint"])
