"""Whether one loss is better than another: a paired t-test over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

LEVEL = 0.05
"""Differences with a p-value below this count as shown."""


class Verdict(StrEnum):
    """What the scores say about the first of two losses."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"  # none that these seeds could show
    FAILED = "failed"  # a training with one of the losses gave no score


@dataclass(frozen=True)
class Comparison:
    """Two losses on the same seeds.

    gain: how much lower the first one's error is on average; p: of the paired two-sided t-test,
    None if there are too few seeds; failures: trainings without a score, of each loss.
    """

    seeds: int
    gain: float
    p: float | None
    failures: tuple[int, int]

    @property
    def verdict(self) -> Verdict:
        if any(self.failures):
            return Verdict.FAILED
        if self.p is None or self.p >= LEVEL:
            return Verdict.NO_DIFFERENCE
        return Verdict.BETTER if self.gain > 0 else Verdict.WORSE


def compare(
    first: Sequence[float], second: Sequence[float], *, higher_is_better: bool
) -> Comparison:
    """Compares the scores of two losses, (S,) each, seed by seed; NaN is a failed training."""
    failures = tuple(sum(not math.isfinite(score) for score in each) for each in (first, second))
    sign = -1.0 if higher_is_better else 1.0
    gains = [sign * (b - a) for a, b in zip(first, second, strict=True)]
    if any(failures):
        return Comparison(len(gains), math.nan, None, (failures[0], failures[1]))
    return Comparison(len(gains), fmean(gains), _p_value(gains), (0, 0))


def _p_value(gains: Sequence[float]) -> float | None:
    if len(gains) < 2:
        return None
    if len(set(gains)) == 1:  # no spread: the statistic is 0/0 or infinite
        return 1.0 if gains[0] == 0.0 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(gains, 0.0).pvalue)
