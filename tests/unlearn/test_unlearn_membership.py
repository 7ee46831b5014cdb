"""Membership inference against scikit-learn's AUC and hand-computed scores."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from evoloss.unlearn.metrics.membership import (
    auc,
    gradnorm_scores,
    loss_scores,
    min_k_plus_plus_scores,
    min_k_scores,
    privleak,
    reference_scores,
    vocabulary_moments,
    zlib_scores,
)
from evoloss.unlearn.metrics.table import MetricError

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8)
SHARES = st.floats(0.0, 1.0)


@given(SCORES, SCORES)
def test_the_auc_is_that_of_scikit_learn(forget, holdout):
    labels = [1] * len(forget) + [0] * len(holdout)
    assert auc("mia_loss", forget, holdout) == pytest.approx(
        roc_auc_score(labels, forget + holdout)
    )


def test_scores_are_higher_for_what_the_model_knows():
    known, strange = torch.tensor([-0.1, -0.2, -0.1]), torch.tensor([-3.0, -0.5, -4.0])
    texts = ["one two three", "four five six"]
    mean = [-0.4 / 3, -2.5]
    answers = [known, strange]
    assert loss_scores(answers) == pytest.approx(mean, rel=1e-6)
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    assert zlib_scores(answers, texts) == pytest.approx(np.array(mean) / sizes, rel=1e-6)
    assert reference_scores(answers, [strange, strange]) == pytest.approx([mean[0] + 2.5, 0.0])
    assert gradnorm_scores([0.5, 7.0]).tolist() == [-0.5, -7.0]


def test_min_k_takes_the_lowest_tokens():
    row = [-1.0, -5.0, -2.0, -4.0, -3.0]
    assert min_k_scores([row])[0] == pytest.approx(-4.5)  # the 2 lowest of 5
    assert min_k_scores([row], 1.0)[0] == pytest.approx(-3.0)
    assert min_k_scores([[-7.0]])[0] == -7.0  # never none


def test_min_k_plus_plus_standardises_every_token_over_the_vocabulary():
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    log_probs = torch.log_softmax(logits, -1)
    means, deviations = vocabulary_moments(log_probs)
    p, tokens = log_probs.exp().double().numpy(), [3, 1, 4, 1, 5]
    standard = []
    for row, logs, token in zip(p, log_probs.double().numpy(), tokens, strict=True):
        mean = sum(a * b for a, b in zip(row, logs, strict=True))
        square = sum(a * b * b for a, b in zip(row, logs, strict=True))
        standard.append((logs[token] - mean) / np.sqrt(square - mean**2))
    chosen = log_probs[range(5), tokens]
    wanted = np.mean(sorted(standard)[:2])
    assert min_k_plus_plus_scores([chosen], [means], [deviations])[0] == pytest.approx(wanted, 1e-5)


def test_moments_of_a_vocabulary_with_impossible_tokens_are_finite():
    means, deviations = vocabulary_moments(torch.tensor([[0.0, -torch.inf, -torch.inf]]))
    assert means.tolist() == deviations.tolist() == [0.0]
    assert np.isfinite(min_k_plus_plus_scores([[0.0]], [means], [deviations])).all()


def test_privleak_is_0_for_the_retain_model_and_minus_100_for_what_is_plain_to_see():
    assert privleak(0.6, 0.6) == 0.0
    assert privleak(1.0, 0.6) == pytest.approx(-100.0)
    assert privleak(0.5, 0.6) == pytest.approx(25.0)


@given(SHARES, SHARES, SHARES.filter(lambda value: value < 0.99))
def test_privleak_falls_as_the_forget_set_gets_plainer(one, other, retain):
    low, high = sorted((one, other))
    assert privleak(high, retain) <= privleak(low, retain)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: auc("mia_loss", [], [1.0]), "mia_loss"),
        (lambda: auc("mia_min_k", [1.0], [float("nan")]), "mia_min_k"),
        (lambda: gradnorm_scores([-1.0]), "mia_gradnorm"),
        (lambda: gradnorm_scores([float("inf")]), "mia_gradnorm"),
        (lambda: zlib_scores([[-1.0]], []), "mia_zlib"),
        (lambda: reference_scores([[-1.0]], []), "mia_reference"),
        (lambda: min_k_plus_plus_scores([[-1.0, -1.0]], [[-1.0]], [[1.0]]), "mia_min_k_plus_plus"),
        (lambda: min_k_scores([[-1.0]], 0.0), "share"),
        (lambda: privleak(0.5, 1.0), "privleak.*holdout"),
        (lambda: privleak(float("nan"), 0.5), "nan"),
    ],
)
def test_what_cannot_be_measured_is_an_error(compute, message):
    with pytest.raises(MetricError, match=message):
        compute()
