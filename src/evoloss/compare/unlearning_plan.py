"""What a comparison of proposers of unlearning losses consists of, before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evoloss.compare.plan import Budget
from evoloss.errors import UserError, unknown
from evoloss.unlearn.settings import METHODS, UnlearnSettings, unlearn_settings


@dataclass(frozen=True)
class Cell:
    """One search: a proposer with a seed."""

    proposer: str
    seed: int
    directory: Path
    settings: UnlearnSettings


@dataclass(frozen=True)
class UnlearnPlan:
    """Proposers × seeds and hand-written losses × seeds, on one problem.

    tune: trainings of each hand-written loss; None takes as many as a search has candidates.
    eval_seeds: adapters of each loss on the test part. settings: of every search.
    """

    proposers: Sequence[str]
    seeds: int
    budget: Budget
    against: Sequence[str]
    out: Path
    tune: int | None = None
    eval_seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for proposer in self.proposers:
            if proposer not in METHODS:
                raise unknown("proposer", proposer, METHODS)
        for name, count in (("seeds", self.seeds), ("evaluation seeds", self.eval_seeds)):
            if count < 1:
                raise UserError(f"{count} {name}: give at least 1")
        if not self.proposers or not self.against:
            raise UserError("nothing to compare: name at least one proposer and one known loss")
        if self.tune is None and self.budget.kind != "candidates":
            raise UserError(
                f"a budget of {self.budget} does not say how many trainings a hand-written loss "
                "is tuned in: give --tune N"
            )
        for cell in self.cells():
            self.trainings(cell.settings)

    def cells(self) -> Iterator[Cell]:
        """The searches, seed by seed."""
        for seed in range(self.seeds):
            yield from self.cells_of(seed)

    def cells_of(self, seed: int) -> list[Cell]:
        """The searches of one seed."""
        return [
            Cell(proposer, seed, self.out / f"{proposer}-{seed}", self._settings(proposer, seed))
            for proposer in self.proposers
        ]

    def trainings(self, settings: UnlearnSettings) -> int:
        """How many trainings a hand-written loss is tuned in."""
        return self.tune or settings.generations * settings.population + settings.final_trainings

    def file(self, seed: int) -> Path:
        """Where the hand-written losses of a seed are kept."""
        return self.out / f"hand-written-{seed}.json"

    def _settings(self, proposer: str, seed: int) -> UnlearnSettings:
        population = self.settings.get("population", UnlearnSettings.population)
        changes = {**self.settings, **self.budget.settings(population)}
        return unlearn_settings(**changes, method=proposer, seed=seed)


def comparable(settings: UnlearnSettings) -> UnlearnSettings:
    """The settings without what only says who works, and where: that may change."""
    return replace(settings, shard=None, device=UnlearnSettings.device)
