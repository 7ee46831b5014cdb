"""Cost curves: what something takes at several sizes, in rounds, and the power law through it.

A round measures every size once, and the next one goes the other way, so that other programs on the
machine disturb all sizes alike. What counts is the median of the rounds. Processor time, of all
threads of this process, is measured beside the time on the wall: where other programs take the
cores, it says more about how cost grows.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

FEWEST_ROUNDS, MOST_ROUNDS = 3, 9
"""Of a curve; between them, as many as its time allows."""


class Seconds(NamedTuple):
    """wall: by the clock; processor: of all threads of this process."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """Since some moment in the past."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, earlier: Seconds, parts: int = 1) -> Seconds:
        """What has passed, divided into equal parts."""
        wall, processor = (a - b for a, b in zip(self, earlier, strict=True))
        return Seconds(wall / parts, processor / parts)


Measure = Callable[[], Seconds]
"""Does the work once and returns the seconds that count."""


@dataclass(frozen=True)
class Curve:
    """What is measured. at: the sizes; unit: of what; make: readies one of them to be measured.

    quick: the sizes of a smoke test. warm: whether each size is measured once before it counts.
    """

    what: str
    unit: str
    at: tuple[int, ...]
    quick: tuple[int, ...]
    make: Callable[[int], AbstractContextManager[Measure]]
    warm: bool = True


@dataclass(frozen=True)
class Fit:
    """seconds = constant · size^exponent, by least squares in the logarithms.

    error: standard error of the exponent; NaN of two points.
    """

    constant: float
    exponent: float
    error: float


@dataclass(frozen=True)
class Found:
    """What every round took at each size."""

    at: tuple[int, ...]
    rounds: tuple[tuple[Seconds, ...], ...]

    @property
    def wall(self) -> list[float]:
        """The median at each size, in seconds."""
        return [median(each.wall for each in rounds) for rounds in self.rounds]

    @property
    def processor(self) -> list[float]:
        """The same of processor time."""
        return [median(each.processor for each in rounds) for rounds in self.rounds]


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """The line through the logarithms. Raises ValueError for fewer than two sizes."""
    if len(set(sizes)) < 2:
        raise ValueError(f"{len(set(sizes))} sizes: a power law wants two or more")
    x, y = [math.log(each) for each in sizes], [math.log(each) for each in seconds]
    at, level = fmean(x), fmean(y)
    width = sum((each - at) ** 2 for each in x)
    exponent = sum((a - at) * (b - level) for a, b in zip(x, y, strict=True)) / width
    rest = sum((b - level - exponent * (a - at)) ** 2 for a, b in zip(x, y, strict=True))
    free = len(x) - 2
    error = math.sqrt(rest / free / width) if free else math.nan
    return Fit(math.exp(level - exponent * at), exponent, error)


def timed(work: Callable[[], object]) -> Seconds:
    """What it takes."""
    start = Seconds.now()
    work()
    return Seconds.now().since(start)


def measured(curve: Curve, seconds: float) -> Found:
    """Rounds until so many seconds are spent, three at least."""
    with ExitStack() as stack:
        points = [stack.enter_context(curve.make(each)) for each in curve.at]
        if curve.warm:
            for measure in points:
                measure()
        began = time.perf_counter()
        rounds: list[list[Seconds]] = [[] for _ in points]
        for number in range(MOST_ROUNDS):
            if number >= FEWEST_ROUNDS and time.perf_counter() - began > seconds:
                break
            for place in range(len(points))[:: -1 if number % 2 else 1]:
                rounds[place].append(points[place]())
    return Found(curve.at, tuple(map(tuple, rounds)))


def shown(curve: Curve, found: Found) -> list[str]:
    """The table of a curve; the exponents are from one size to the next, of processor time."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        f"{curve.what}; median of {len(found.rounds[0])} rounds, load average {load}",
        f"{curve.unit:>14} {'ms':>11} {'of processor':>13} {'for one':>10} {'ratio':>9}"
        f" {'exponent':>9}",
    ]
    before: tuple[float, float] | None = None
    for size, wall, processor in zip(found.at, found.wall, found.processor, strict=True):
        local = _between(before, (size, processor))
        lines.append(
            f"{size:14,} {1e3 * wall:11,.2f} {1e3 * processor:13,.2f}"
            f" {1e3 * processor / size:10.4f} {processor / found.processor[0]:9.2f} {local:>9}"
        )
        before = size, processor
    return [*lines, f"exponent {_exponent(found.at, found.processor)}, "
            f"of the time on the wall {_exponent(found.at, found.wall)}"]  # fmt: skip


def _exponent(sizes: Sequence[float], seconds: Sequence[float]) -> str:
    fit = power_law(sizes, seconds)
    return f"{fit.exponent:.2f} ± {fit.error:.2f}"


def _between(one: tuple[float, float] | None, other: tuple[float, float]) -> str:
    """The exponent from one (size, seconds) to another."""
    if one is None:
        return ""
    sizes, seconds = zip(one, other, strict=True)
    return f"{power_law(sizes, seconds).exponent:.2f}"
