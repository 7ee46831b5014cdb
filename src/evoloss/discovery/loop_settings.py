"""What decides the history of any search, whatever its losses train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from evoloss.errors import UserError, unknown

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
ENDLESS = 1_000_000
"""Generations of a search that another budget is to end."""
MANY = 256
"""Losses in a generation that keep 64 workers or more busy, in shards of four at most."""


@dataclass(frozen=True)
class LoopSettings:
    """The part of a search's settings that the loop itself reads.

    method: who proposes losses. preset: the name of the defaults that were taken.
    population, generations: losses proposed at a time, and how often.
    parsimony, retries: see `GPSettings`.
    local_search: how weights are tuned; `none` leaves them. weights: which ones, the `edges` or the
        `constants` of the proposed losses.
    rejection: whether losses that fail a cheap test are dropped; reject_first: also before tuning.
    equivalence: take over the result of a loss with the same gradients.
    canonical: whether duplicates are found by canonical form or only by equal text.
    racing: train all to a part of the steps, then only the better half, and so on.
    asynchronous: the half is that of earlier generations, so that no candidate waits for others;
        None: where a generation has work for many workers.
    seeded: whether the first generation holds the usual loss, so that a search has at least that
        to tune and to cross.
    finalists: the best so many are scored again at the end and the best mean wins; 0 for none.
    max_candidates: no generation begins that would make more losses than these.
    max_steps, max_seconds: no generation begins once so many gradient steps or seconds are spent.
    max_tokens, max_cost: nor once a language model that is asked may not use more than these.
    """

    method: str = "evomal"
    preset: str = "fast"
    seed: int = 0
    population: int = 25
    generations: int = 50
    parsimony: float = 1.4
    retries: int = 5
    local_search: str = "unrolled"
    weights: str = "edges"
    rejection: bool = True
    reject_first: bool = True
    equivalence: bool = True
    canonical: bool = True
    racing: bool = True
    asynchronous: bool | None = None
    seeded: bool = True
    finalists: int = 10
    max_candidates: int | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    max_tokens: int | None = None
    max_cost: float | None = None

    @property
    def waits(self) -> bool:
        """Whether candidates wait for each other at the rungs of a race.

        By the size of a generation and not by the workers there are: on these no history depends.
        """
        return self.population < MANY if self.asynchronous is None else not self.asynchronous

    def check_budgets(self, asks_a_language_model: bool) -> None:
        """Raises UserError for budgets that allow nothing, or that nothing can use up."""
        self.at_least(max_steps=1, max_tokens=1)
        for name in ("max_seconds", "max_cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} is {value:g}: give a number above 0")
        if self.max_candidates is not None and self.max_candidates < self.population:
            raise UserError(
                f"max_candidates is {self.max_candidates}, less than a generation of "
                f"{self.population}: give more, or a smaller population"
            )
        for name in ("max_tokens", "max_cost"):
            if getattr(self, name) is not None and not asks_a_language_model:
                raise UserError(
                    f"{name} is {getattr(self, name):g}, but no language model is asked: leave it "
                    "out, or search with `evoloss unlearn search --proposer llm`"
                )

    def at_least(self, **least: float) -> None:
        """Raises UserError for a setting that is given and below its least value."""
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and not value >= minimum:
                raise UserError(f"{name} is {value}: give at least {minimum}")

    @classmethod
    def parsed(cls, texts: Sequence[str]) -> dict[str, Any]:
        """Settings written as NAME=VALUE, of the types that their defaults have.

        Raises: UserError for an unknown name or a value of another type.
        """
        types = get_type_hints(cls)
        found = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"'{text}' sets nothing: write NAME=VALUE")
            if name not in {field.name for field in fields(cls)}:
                raise unknown("setting", name, sorted(field.name for field in fields(cls)))
            found[name] = _value(name, value, types[name])
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The settings that `to_json` wrote; names of another version are refused."""
        foreign = set(data) - {field.name for field in fields(cls)}
        if foreign:
            raise UserError(
                f"the run has settings this version does not know: {', '.join(sorted(foreign))}"
            )
        return cls(**data)


def _value(name: str, text: str, kind: Any) -> Any:
    """A text as one of the types that a setting may have."""
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    if text == "none" and NoneType in kinds:
        return None
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    shown = " or ".join("none" if each is NoneType else each.__name__ for each in kinds)
    raise UserError(f"setting {name}={text}: give a value of type {shown}")


def check_device_name(name: str) -> None:
    """Raises: UserError for what names no device; whether there is one is another question."""
    if not _DEVICE.fullmatch(name):
        raise UserError(f"device '{name}': give cpu, cuda, cuda:0 and so on, or auto")
