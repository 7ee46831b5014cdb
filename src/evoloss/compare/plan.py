"""What a comparison consists of: its cells, each a search, and where each is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evoloss.discovery.loop_settings import ENDLESS
from evoloss.discovery.presets import METHODS
from evoloss.discovery.settings import Settings, preset
from evoloss.errors import UserError, unknown
from evoloss.wording import counted

USUAL, TUNED = "task-loss", "tuned-task-loss"
"""The two that every method is held against; a comparison always holds them."""
_KINDS = ("candidates", "seconds", "steps")


@dataclass(frozen=True)
class Budget:
    """What each search may spend: candidates, or seconds, or gradient steps."""

    kind: str = "candidates"
    amount: float = 1250

    def settings(self, population: int) -> dict[str, Any]:
        """As settings of a search with so many losses in a generation."""
        if self.kind == "seconds":
            return {"generations": ENDLESS, "max_seconds": float(self.amount)}
        if self.kind == "steps":
            return {"generations": ENDLESS, "max_steps": int(self.amount)}
        if self.amount < population:
            raise UserError(
                f"a budget of {counted(self.amount, 'candidate')} is too small for one generation "
                f"of {population}: give more, or a smaller --population"
            )
        return {"generations": int(self.amount) // population}

    def __str__(self) -> str:
        return f"{self.kind}={self.amount:g}"


def parse_budget(text: str) -> Budget:
    """The budget that `candidates=1250`, `seconds=60` or `steps=1e6` stands for."""
    kind, _, number = text.partition("=")
    if kind not in _KINDS:
        raise unknown("budget", kind, _KINDS)
    try:
        amount = float(number)
    except ValueError:
        amount = 0.0
    if not 0 < amount < math.inf:
        raise UserError(f"budget '{text}': give a positive number, such as {kind}=1250")
    return Budget(kind, amount)


@dataclass(frozen=True)
class Cell:
    """One search: a method on a task with a seed."""

    task: str
    method: str
    seed: int
    directory: Path
    settings: Settings


@dataclass(frozen=True)
class Plan:
    """Methods × tasks × seeds at one budget.

    tasks: as `load_task` takes them. factors: the meta-tests, in multiples of the training steps
    of a fitness; trainings: networks trained for each loss and meta-test. settings: of every
    search that has a choice, such as population=25. jobs: searches that run at once, each in a
    process of its own.
    """

    tasks: Sequence[str]
    methods: Sequence[str]
    seeds: int
    budget: Budget
    out: Path
    preset: str = "fast"
    factors: tuple[int, ...] = (1, 4, 10)
    trainings: int = 3
    settings: dict[str, Any] = field(default_factory=dict)
    jobs: int = 1

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise unknown("method", method, METHODS)
        for name, count in (
            ("seeds", self.seeds),
            ("trainings", self.trainings),
            ("jobs", self.jobs),
        ):
            if count < 1:
                raise UserError(f"{count} {name}: give at least 1")
        if not self.factors or min(self.factors) < 1:
            raise UserError(f"meta-test factors {self.factors}: give whole numbers from 1")
        for method in self.all_methods:
            self._settings(method, 0)

    @property
    def all_methods(self) -> list[str]:
        """Those asked for, after the usual loss as it is and with its learning rate tuned."""
        return [USUAL, TUNED, *(each for each in self.methods if each not in (USUAL, TUNED))]

    def cells(self, task: str, folder: str) -> Iterator[Cell]:
        """The searches on one task, seed by seed. folder: the task's, within `out`."""
        for seed in range(self.seeds):
            for method in self.all_methods:
                directory = self.out / folder / f"{method}-{seed}"
                yield Cell(task, method, seed, directory, self._settings(method, seed))

    def _settings(self, method: str, seed: int) -> Settings:
        """Methods that are given their population (the usual loss alone) keep it."""
        own = METHODS[method]
        changes = {name: value for name, value in self.settings.items() if name not in own}
        if "population" not in own:
            population = changes.get("population", Settings.population)
            changes |= self.budget.settings(population)
        return preset(self.preset, method=method, seed=seed, **changes)
