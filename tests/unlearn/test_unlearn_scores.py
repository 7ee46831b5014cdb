"""Scores of whole models: SciPy's tests and means, and models that must not win."""

import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hmean, ks_2samp

from evoloss.errors import UserError
from evoloss.unlearn.metrics.meaning import row_of
from evoloss.unlearn.metrics.scores import (
    OBJECTIVES,
    UTILITY_PARTS,
    balance,
    balance95,
    forget_quality,
    forgetting,
    harmonic_mean,
    knowledge,
    muse_score,
    objective,
    tofu_score,
    utility_kept,
)
from evoloss.unlearn.metrics.table import METRICS, MetricError

SHARES = st.floats(0.0, 1.0)
SOME = st.floats(0.01, 1.0)


def largest_gap(one, other):
    """The Kolmogorov-Smirnov statistic from its definition."""
    gaps = [abs(np.mean(one <= cut) - np.mean(other <= cut)) for cut in (*one, *other)]
    return max(gaps)


def test_forget_quality_is_the_share_of_relabellings_with_as_large_a_gap():
    found, wanted = np.array([0.1, 0.7, 0.2, 1.9]), np.array([1.1, 1.4, 0.5, 2.2, 3.1])
    pooled, gap = np.concatenate([found, wanted]), largest_gap(found, wanted)
    every = [set(picked) for picked in combinations(range(9), 4)]
    gaps = [largest_gap(pooled[sorted(own)], pooled[sorted(set(range(9)) - own)]) for own in every]
    assert forget_quality(found, wanted) == pytest.approx(np.mean(np.array(gaps) >= gap - 1e-9))


def test_forget_quality_is_that_of_the_ratios_themselves_and_1_for_the_retain_model():
    rng = np.random.default_rng(0)
    ratios, retain = rng.lognormal(size=40), rng.lognormal(0.5, size=30)
    plain = ks_2samp(ratios, retain).pvalue
    assert forget_quality(np.log(ratios), np.log(retain)) == pytest.approx(plain)
    assert forget_quality(np.log(retain), np.log(retain)) == 1.0


@given(st.lists(SOME, min_size=9, max_size=9))
def test_model_utility_is_the_harmonic_mean_of_the_nine(values):
    assert harmonic_mean(dict(zip(UTILITY_PARTS, values, strict=True))) == pytest.approx(
        hmean(values)
    )


def test_one_part_at_0_is_no_utility():
    values = dict.fromkeys(UTILITY_PARTS, 0.9)
    assert harmonic_mean(values | {"world_facts_rouge": 0.0}) == 0.0
    for tiny in (5e-324, 1e-320, 8e-309, 2.3e-308, 1e-307):
        for other in (1.0, tiny):
            found = harmonic_mean({"prob": tiny, "rouge": other})
            assert found == pytest.approx(0.0, abs=1e-306)


@pytest.mark.parametrize("bad", [None, float("nan"), 1.2, -0.1])
def test_model_utility_without_one_of_its_parts_is_an_error(bad):
    values = dict.fromkeys(UTILITY_PARTS, 0.9) | {"retain_prob": bad}
    with pytest.raises(MetricError, match="retain_prob"):
        harmonic_mean(values)


def test_the_published_scores_by_hand():
    tofu = {"model_utility": 0.6, "forget_rouge": 0.4, "forget_prob": 0.2}
    assert tofu_score(tofu) == pytest.approx(0.5 * 0.6 + 0.5 * 0.7)
    muse = {"forget_verbmem": 0.1, "forget_knowmem": 0.3, "retain_knowmem": 0.5, "privleak": -40}
    assert muse_score(muse) == pytest.approx(0.5 * (0.9 + 0.7 + 0.6) / 3 + 0.5 * 0.5)
    assert muse_score(muse | {"privleak": 250}) == pytest.approx(0.5 * (0.9 + 0.7) / 3 + 0.25)


def score(after_forget, after_retain, original_forget, original_retain, floor=0.0):
    parts = {
        "forgetting": forgetting(after_forget, original_forget, floor),
        "utility_kept": utility_kept({"rouge": after_retain}, {"rouge": original_retain}),
    }
    return balance(parts)


@given(SOME, SOME, SHARES)
def test_no_degenerate_model_wins_the_default_objective(known, utility, share):
    assert score(known, utility, known, utility) == 0.0  # untouched
    assert score(0.0, 0.0, known, utility) == 0.0  # destroyed
    assert score(known * share, 0.0, known, utility) == 0.0
    assert score(1.0, 1.0, known, utility) == 0.0  # has learnt the forget set, too
    assert score(0.0, utility, known, utility) == 1.0


@given(SHARES, SHARES, SHARES, SHARES)
def test_the_default_objective_rises_with_both_parts_and_is_at_most_twice_the_smaller(a, b, c, d):
    low, high = ({"forgetting": f(a, b), "utility_kept": f(c, d)} for f in (min, max))
    assert balance(low) <= balance(high) + 1e-12
    assert balance(high) <= 2 * min(high.values()) + 1e-12


def test_each_part_of_the_utility_is_compared_with_itself():
    before = {"prob": 0.8, "rouge": 1.0, "truth_ratio": 0.2, "choices": 0.0}
    after = {"prob": 0.6, "rouge": 0.5, "truth_ratio": 0.4, "choices": 0.3}
    # A truth ratio that doubles pays for nothing, nor does what could not be done before.
    assert utility_kept(after, before) == pytest.approx(statistics.harmonic_mean([0.75, 0.5, 1.0]))
    assert utility_kept(before, before) == 1.0
    assert utility_kept(before | {"rouge": 0.0}, before) == 0.0


def test_forgetting_beyond_the_retain_model_earns_nothing():
    assert forgetting(0.3, 0.9, 0.3) == forgetting(0.0, 0.9, 0.3) == 1.0
    assert forgetting(0.6, 0.9, 0.3) == pytest.approx(0.5)
    assert knowledge(0.2, 0.6) == pytest.approx(0.4)
    assert knowledge(0.2) == 0.2


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: forgetting(0.1, 0.2, 0.3), "nothing to forget"),
        (lambda: forgetting(float("nan"), 0.9), "forgetting"),
        (lambda: utility_kept({"a": 0.5}, {"a": 0.0}), "nothing to keep"),
        (lambda: utility_kept({"a": 0.5}, {"a": 0.5, "b": 0.5}), "utility_kept: b' is missing"),
        (lambda: utility_kept({"a": 0.5}, {"a": 1.5}), "a before"),
        (lambda: knowledge(None), "prob.*missing"),
        (lambda: balance({"forgetting": 0.5}), "utility_kept.*missing"),
        (lambda: tofu_score({"model_utility": 0.5, "forget_rouge": 0.1}), "forget_prob"),
        (lambda: muse_score(dict.fromkeys(["forget_verbmem"], 0.1)), "forget_knowmem"),
        (lambda: harmonic_mean({}), "model_utility"),
        (lambda: forget_quality([], [0.1]), "forget_quality"),
        (lambda: forget_quality([float("nan")], [0.1]), "forget_quality"),
    ],
)
def test_a_missing_value_is_an_error_and_never_a_good_score(compute, message):
    with pytest.raises(MetricError, match=message):
        compute()


def test_whatever_keeps_enough_is_ahead_of_whatever_does_not():
    models = [(0.2, 0.95), (0.9, 0.96), (1.0, 0.9499), (1.0, 0.5), (1.0, 0.0)]
    scores = [balance95({"forgetting": gone, "utility_kept": kept}) for gone, kept in models]
    assert scores[:2] == [pytest.approx(2 * g * k / (g + k)) for g, k in models[:2]]
    assert scores[2:] == [pytest.approx(kept - 0.95) for _, kept in models[2:]]
    assert [scores.index(each) for each in sorted(scores, reverse=True)] == [1, 0, 2, 3, 4]


def test_objectives_are_chosen_by_name():
    assert set(OBJECTIVES) <= set(METRICS)
    values = {"forgetting": 0.5, "utility_kept": 0.5}
    assert objective("balance", values) == balance(values) == pytest.approx(0.5)
    with pytest.raises(UserError, match="did you mean 'tofu_score'"):
        objective("tofu_scores", values)


@pytest.mark.parametrize(
    ("name", "metric", "aim"),
    [("forget_prob", "prob", "lower"), ("retain_prob", "prob", "higher"),
     ("trained_rouge", "rouge_l_recall", "higher"), ("world_facts_prob", "prob_among_options",
     "higher"), ("news_prob", "prob", "higher"), ("forget_truth_ratio", "forget_truth_ratio",
     "higher"), ("retain_truth_ratio", "truth_ratio", "higher"),
     ("forget_knowmem", "rouge_l_f1", "lower"), ("retain_knowmem", "rouge_l_f1", "higher"),
     ("wmdp_bio", "multiple_choice", "lower"), ("mmlu", "multiple_choice", "higher"),
     ("extraction_strength", "extraction_strength", "lower"), ("mia_loss", "mia_loss",
     "nearest to 0.5"), ("privleak", "privleak", "nearest to 0"), ("balance", "balance",
     "higher")],
)  # fmt: skip
def test_what_a_value_is_and_where_it_should_go(name, metric, aim):
    row, found = row_of(name, [name, "world_facts_truth_ratio"])
    assert (row.name, found) == (metric, aim)
