"""What ends a search: the budgets among its settings, and which of them is used up first.

Which one that was follows from what the store keeps, so a search that was broken off ends where an
unbroken one would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from evoloss.discovery.loop_settings import LoopSettings
from evoloss.errors import UserError

BUDGETS = {
    "generations": "generations",
    "max_candidates": "candidates",
    "max_steps": "gradient steps",
    "max_seconds": "seconds",
    "max_tokens": "tokens of the language model",
    "max_cost": "in money for the language model",
}
"""The settings that end a search, with what each of them counts."""

_PARTS = {"max_steps": "steps", "max_seconds": "seconds"}
"""What an outcome says of the finalists, in the unit of a budget."""

RECORD = "budget"
"""The kind of the record by which a proposer says that a budget of its own allows no more."""

_Any = TypeVar("_Any", bound=LoopSettings)


@dataclass(frozen=True)
class Spent:
    """What a search has used. records: what its proposer kept."""

    generations: int
    candidates: int
    steps: int
    seconds: float
    records: Iterable[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Ending:
    """The budget that ended a search, by the name of its setting, and what was used of it.

    budget: empty if the proposer had no more losses. finalists: what scoring these took besides,
    which no budget counts.
    """

    budget: str
    limit: float = 0.0
    used: float = 0.0
    finalists: float = 0.0

    @classmethod
    def of(cls, outcome: Mapping[str, Any] | None) -> Ending | None:
        """What a stored outcome says; None of a run that is not finished, or does not tell."""
        found = (outcome or {}).get("ended")
        if found is None:
            return None
        besides = (outcome or {}).get("finalists") or {}
        return cls(**found, finalists=besides.get(_PARTS.get(found["budget"], ""), 0.0))

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the store, which keeps the finalists' share by itself."""
        return {name: value for name, value in asdict(self).items() if name != "finalists"}

    @property
    def option(self) -> str:
        """How to resume with twice as much; empty if nothing helps."""
        if not self.budget:
            return ""
        return f"--{self.budget.replace('_', '-')} {2 * self.limit:.15g}"

    def __str__(self) -> str:
        if not self.budget:
            return "the search ended because there was nothing more to propose"
        text = (
            f"the search ended with its budget {self.budget}: "
            f"{_shown(self.used)} of {_shown(self.limit)} {BUDGETS[self.budget]} used"
        )
        if self.budget in _PARTS and self.used > self.limit:
            text += ", for a generation that has begun is finished"
        if self.finalists:
            text += f"; the finalists took {_shown(self.finalists)} more"
        return text


def ending(settings: LoopSettings, spent: Spent) -> Ending | None:
    """The budget that leaves no room for a further generation; None while there is room.

    Candidates are never more than allowed. How many steps and seconds a generation takes, nobody
    knows beforehand: the one that passes the limit is finished, so that they may be passed by
    nearly all of a generation. What is made of half a generation could not be told to the proposer,
    nor be the same wherever the clock stopped it.
    """
    if spent.generations >= settings.generations:
        return Ending("generations", settings.generations, spent.generations)
    most = settings.max_candidates
    if most is not None and spent.candidates + settings.population > most:
        return Ending("max_candidates", most, spent.candidates)
    if settings.max_steps is not None and spent.steps >= settings.max_steps:
        return Ending("max_steps", settings.max_steps, spent.steps)
    if settings.max_seconds is not None and spent.seconds >= settings.max_seconds:
        return Ending("max_seconds", settings.max_seconds, spent.seconds)
    for record in spent.records:
        limit = getattr(settings, record["budget"])
        # A run that was resumed with more holds the record of its former limit too.
        if limit is not None and record["limit"] >= limit:
            return Ending(record["budget"], limit, record["used"])
    return None


def raised(settings: _Any, budgets: Mapping[str, float]) -> _Any:
    """The settings with larger budgets. Raises UserError for one that is not larger."""
    for name, value in budgets.items():
        if name not in BUDGETS:
            raise UserError(f"'{name}' is no budget: raise one of {', '.join(BUDGETS)}")
        before = getattr(settings, name)
        if before is not None and value <= before:
            raise UserError(f"{name} is {before:g} in this run: give more than that, not {value:g}")
    changes: dict[str, Any] = dict(budgets)
    return replace(settings, **changes)


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
