"""Where a language model answers, how it is sampled, and what that may cost."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from evoloss.errors import UserError

LEAST_REPLY = 256
"""Tokens: with less of the budget left than this, or `max_tokens`, no call is made."""
_CHARACTERS = 3
"""For one token, where nothing is reported; 4 are usual, and fewer keep the budget safely."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp or a hosted one.

    url: up to /v1. api_key_env: the environment variable that holds the key; a local server needs
    none. timeout: seconds for a whole reply. retries: further attempts at a call that failed.
    samples_at_once: calls in parallel. losses_per_sample: how many one call may ask for.
    max_tokens: of one reply. two_phase: reasoning first at `temperature`, then the code at
    `code_temperature`, in a call of its own. top_k is sent only if it is set.
    max_total_tokens, max_cost: the budget of a search; prices are for a million tokens.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 180.0
    retries: int = 3
    samples_at_once: int = 4
    losses_per_sample: int = 5
    max_tokens: int = 4096
    two_phase: bool = False
    temperature: float = 0.6
    code_temperature: float = 0.2
    top_p: float = 0.95
    top_k: int | None = None
    max_total_tokens: int | None = None
    max_cost: float | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self) -> None:
        _check(self)


def _check(endpoint: Endpoint) -> None:
    """Raises UserError for settings that no call can be made with."""
    if not endpoint.url.startswith(("http://", "https://")):
        raise UserError(f"the endpoint '{endpoint.url}' is no URL: write http://localhost:8000/v1")
    if not endpoint.model:
        raise UserError(f"no model is named for {endpoint.url}: name one that it serves")
    for name in ("timeout", "samples_at_once", "losses_per_sample", "max_tokens"):
        if not 0 < getattr(endpoint, name) < math.inf:
            raise UserError(f"{name} {getattr(endpoint, name)} will not do: use 1 or more")
    for name in ("retries", "temperature", "code_temperature", "input_price", "output_price"):
        if getattr(endpoint, name) < 0:
            raise UserError(f"{name} {getattr(endpoint, name)} is negative: use 0 or more")
    if endpoint.max_cost is not None and not (endpoint.input_price or endpoint.output_price):
        raise UserError(f"a budget of {endpoint.max_cost:g} needs prices: give those of a million "
                        "input and output tokens")  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """Tokens that were read and written; estimated: whether some of them were not reported."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.estimated or other.estimated,
        )

    def cost(self, endpoint: Endpoint) -> float:
        """In the currency of the prices."""
        read = self.prompt_tokens * endpoint.input_price
        return (read + self.completion_tokens * endpoint.output_price) / 1e6


def estimated_tokens(characters: int) -> int:
    """How many tokens a text has, on the safe side."""
    return math.ceil(characters / _CHARACTERS)


class Budget:
    """What was spent and what calls in flight may still spend; shared by their threads."""

    def __init__(self, endpoint: Endpoint, spent: Usage) -> None:
        self.endpoint = endpoint
        self.spent = spent
        self._reserved = Usage()
        self._refused = 0
        self._lock = threading.Lock()

    def reserve(self, prompt_tokens: int) -> Usage | None:
        """What a call may use at most, set aside for it; None if too little is left."""
        endpoint = self.endpoint
        with self._lock:
            reply = math.floor(min(endpoint.max_tokens, *self._left(prompt_tokens).values()))
            if reply < min(LEAST_REPLY, endpoint.max_tokens):
                self._refused = prompt_tokens
                return None
            reserved = Usage(prompt_tokens, reply)
            self._reserved += reserved
            return reserved

    def used_up(self) -> tuple[str, float, float] | None:
        """The budget that allows no further call, its limit and what was used; None if both do.

        A prompt that was refused while others were in flight is asked about again: those may have
        used less than was set aside for them.
        """
        endpoint = self.endpoint
        with self._lock:
            left = self._left(self._refused)
            if left.get("max_tokens", math.inf) < min(LEAST_REPLY, endpoint.max_tokens):
                return "max_tokens", float(endpoint.max_total_tokens or 0), self.spent.total
            if left.get("max_cost", math.inf) < min(LEAST_REPLY, endpoint.max_tokens):
                return "max_cost", endpoint.max_cost or 0.0, self.spent.cost(endpoint)
        return None

    def _left(self, prompt_tokens: int) -> dict[str, float]:
        """Tokens that the reply to such a prompt may have, by each budget that is set."""
        endpoint, used = self.endpoint, self.spent + self._reserved
        found = {"": math.inf}
        if endpoint.max_total_tokens is not None:
            found["max_tokens"] = endpoint.max_total_tokens - used.total - prompt_tokens
        if endpoint.max_cost is not None:
            money = endpoint.max_cost - (used + Usage(prompt_tokens)).cost(endpoint)
            free = math.inf if money >= 0 else -1.0
            price = endpoint.output_price
            found["max_cost"] = 1e6 * money / price if price else free
        return found

    def settle(self, reserved: Usage, used: Usage) -> None:
        """The call is over: what it used is spent, and the rest of what was set aside is free."""
        with self._lock:
            held = self._reserved
            self._reserved = Usage(
                held.prompt_tokens - reserved.prompt_tokens,
                held.completion_tokens - reserved.completion_tokens,
            )
            self.spent += used

    def __str__(self) -> str:
        """The limits, what was used of them, and what calls in flight may still use."""
        endpoint, held, parts = self.endpoint, self._reserved, []
        if endpoint.max_total_tokens is not None:
            more = f", {held.total:,} reserved" if held.total else ""
            parts.append(f"{self.spent.total:,} of {endpoint.max_total_tokens:,} tokens used{more}")
        if endpoint.max_cost is not None:
            money, most = self.spent.cost(endpoint), endpoint.max_cost
            more = f", {held.cost(endpoint):.4g} reserved" if held.total else ""
            parts.append(f"{money:.4g} of {most:g} in money used{more}")
        return " and ".join(parts)
