"""The race of a generation: all train for a part of the steps, then the better half, and so on.

Successive halving (Karnin et al. 2013). Who survives is trained to the full budget, so the
survivors' scores compare. How trainings are carried out is the runner's affair.

An asynchronous race has no waiting at its rungs: whoever arrives there is compared with marks that
earlier generations left, the scores that their better half reached. Asynchronous halving as it is
published (Li et al. 2020) compares with whoever has arrived by then, and that is up to the clock.
Marks are known before anybody starts, so a seed has one history, whoever trains it and when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    fault: how it broke its worker, if it did. rungs: the finite errors at the rungs it came to.
    """

    errors: tuple[float, ...]
    steps: int
    finished: bool
    fault: str = ""
    rungs: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """The mean over the trials; NaN or infinite if one of them is."""
        return sum(self.errors) / len(self.errors)


Marks = tuple[float, ...]
"""For each rung, the error that lets a candidate train on: infinite where all may."""
Racing = bool | Marks
"""Whether there is a race: of a generation's own candidates, or of each against marks."""


def marks(earlier: Sequence[Sequence[float]]) -> Marks:
    """The marks that earlier candidates leave: what their better half had reached at each rung.

    earlier: of each of them the errors at the rungs that it came to.
    """
    found = []
    for rung in range(max(map(len, earlier))):
        errors = sorted(each[rung] for each in earlier if len(each) > rung)
        few = len(errors) < SMALLEST_RACE
        found.append(math.inf if few else errors[math.ceil(len(errors) / 2) - 1])
    return tuple(found)


def worse_half(racing: Racing) -> str:
    """Where those are that drop out."""
    return "the worse half" + (" of earlier ones" if isinstance(racing, tuple) else "")


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
    racing: Racing,
    tick: Callable[[float], None] = lambda share: None,
) -> list[Score]:
    """The score of each of so many candidates, trained for `total` steps at most."""
    ends = [*(round(total * rung) for rung in RUNGS if racing), total]
    running = list(range(count))
    scores: dict[int, Score] = {}
    rungs: list[tuple[float, ...]] = [()] * count
    begin = 0
    for number, end in enumerate(ends):
        for index, found in zip(running, runner.advance(running, begin, end), strict=True):
            score = _score(found, end, end == total)
            if end < total and math.isfinite(score.error):
                rungs[index] = (*rungs[index], score.error)
            scores[index] = replace(score, rungs=rungs[index])
        kept = _kept([scores[index].error for index in running], racing, number)
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


def _kept(errors: Sequence[float], racing: Racing, rung: int) -> list[int]:
    """The rows that train on, in order: all that are finite, or the better ones of them."""
    finite = [row for row, error in enumerate(errors) if math.isfinite(error)]
    if isinstance(racing, tuple):
        return [row for row in finite if rung >= len(racing) or errors[row] <= racing[rung]]
    if not racing or len(finite) < SMALLEST_RACE:
        return finite
    best = sorted(finite, key=lambda row: (errors[row], row))[: math.ceil(len(finite) / 2)]
    return sorted(best)
