"""The paired comparison against a t-test by hand and against what it must say at the edges."""

import math
from statistics import fmean, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad

from evoloss.discovery.comparison import Verdict, compare

SCORES = st.lists(
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=8
)  # fmt: skip


def two_sided(statistic: float, freedom: int) -> float:
    """The p-value of Student's t by integrating its density."""
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)

    def density(t: float) -> float:
        return scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)

    return 1 - 2 * quad(density, 0, abs(statistic))[0]


@given(SCORES)
def test_the_p_value_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    gains = [b - a for a, b in pairs]
    assume(stdev(gains) > 1e-3)
    statistic = fmean(gains) / stdev(gains) * math.sqrt(len(gains))
    assume(abs(statistic) < 20)
    compared = compare(first, second, higher_is_better=False)
    assert compared.gain == pytest.approx(fmean(gains))
    assert compared.p == pytest.approx(two_sided(statistic, len(gains) - 1), abs=1e-6)


@given(SCORES)
def test_the_direction_of_the_metric_turns_the_gain_around(
    pairs: list[tuple[float, float]],
) -> None:
    first, second = zip(*pairs, strict=True)
    low = compare(first, second, higher_is_better=False)
    high = compare(first, second, higher_is_better=True)
    assert low.gain == -high.gain
    assert low.p == pytest.approx(high.p)


def test_verdicts() -> None:
    lower, higher = (0.1, 0.2, 0.3), (1.1, 1.21, 1.29)
    assert compare(lower, higher, higher_is_better=False).verdict is Verdict.BETTER
    assert compare(lower, higher, higher_is_better=True).verdict is Verdict.WORSE
    assert compare(higher, lower, higher_is_better=False).verdict is Verdict.WORSE
    mixed = compare((0.1, 0.3, 0.2), (0.2, 0.1, 0.3), higher_is_better=False)
    assert mixed.verdict is Verdict.NO_DIFFERENCE


def test_equal_scores_and_a_constant_gain_have_no_spread_to_divide_by() -> None:
    same = compare((0.5, 0.7), (0.5, 0.7), higher_is_better=False)
    assert (same.p, same.verdict) == (1.0, Verdict.NO_DIFFERENCE)
    shifted = compare((0.5, 0.5), (0.75, 0.75), higher_is_better=False)
    assert (shifted.p, shifted.verdict) == (0.0, Verdict.BETTER)


def test_one_seed_shows_nothing() -> None:
    compared = compare((0.1,), (0.9,), higher_is_better=False)
    assert (compared.p, compared.verdict) == (None, Verdict.NO_DIFFERENCE)


def test_a_failed_training_is_a_failure_and_never_a_good_score() -> None:
    compared = compare((math.nan, 0.1, 0.1), (0.9, 0.8, math.inf), higher_is_better=False)
    assert compared.failures == (1, 1)
    assert compared.verdict is Verdict.FAILED
