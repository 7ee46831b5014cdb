"""The race of a generation: all train for a part of the steps, then the better half, and so on.

Successive halving (Karnin et al. 2013). Who survives is trained to the full budget, so the
survivors' scores compare. Decisions are made here, over all candidates at once; how their
trainings are carried out is the runner's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from evoloss.execution.executor import Fault

RUNGS = (0.2, 0.5)
"""At these shares of the steps the worse half drops out."""
SMALLEST_RACE = 4
"""Fewer candidates than this are all trained to the end."""


@dataclass(frozen=True)
class Score:
    """The outcome of one loss's trainings.

    errors: one a trial, at the last step reached; finished: whether that was the full budget.
    fault: how it broke its worker, if it did.
    """

    errors: tuple[float, ...]
    steps: int
    finished: bool
    fault: str = ""

    @property
    def error(self) -> float:
        """The mean over the trials; NaN or infinite if one of them is."""
        return sum(self.errors) / len(self.errors)


class Runner(Protocol):
    """Trains candidates, by number, from step to step, and remembers how far they are."""

    def advance(
        self, running: Sequence[int], begin: int, end: int
    ) -> Sequence[tuple[float, ...] | Fault]:
        """The errors of each after the step `end`, one a trial; all of them stood at `begin`."""


def race(
    runner: Runner,
    count: int,
    total: int,
    racing: bool,
    tick: Callable[[float], None] = lambda share: None,
) -> list[Score]:
    """The score of each of so many candidates, trained for `total` steps at most."""
    ends = [*(round(total * rung) for rung in RUNGS if racing), total]
    running = list(range(count))
    scores: dict[int, Score] = {}
    begin = 0
    for end in ends:
        for index, found in zip(running, runner.advance(running, begin, end), strict=True):
            scores[index] = _score(found, end, end == total)
        kept = _kept([scores[index].error for index in running], racing)
        if not kept or end == total:
            break
        running = [running[row] for row in kept]
        begin = end
        tick(end / total)
    return [scores[index] for index in range(count)]


def _score(found: tuple[float, ...] | Fault, end: int, finished: bool) -> Score:
    if isinstance(found, Fault):
        return Score((math.nan,), end, False, found.reason)
    return Score(found, end, finished)


def _kept(errors: Sequence[float], racing: bool) -> list[int]:
    """The rows that train on, in order: all that are finite, or the better half of them."""
    finite = [row for row, error in enumerate(errors) if math.isfinite(error)]
    if not racing or len(finite) < SMALLEST_RACE:
        return finite
    best = sorted(finite, key=lambda row: (errors[row], row))[: math.ceil(len(finite) / 2)]
    return sorted(best)
