"""Membership inference: can the forget set be told from data that the model never saw?

Every score is higher for what looks more like a member of the training data; `auc` compares the
scores of forget answers with those of holdout answers. PrivLeak is that of MUSE (Shi et al. 2024).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from evoloss.unlearn.metrics.rows import (
    Row,
    as_array,
    log_probability_rows,
    number_row,
    number_rows,
    same_count,
)
from evoloss.unlearn.metrics.table import Array, MetricError, metric

LOWEST_SHARE = 0.4  # k of Min-K in OpenUnlearning
_LEAST_VARIANCE = 1e-6  # a vocabulary on which all probability is one token's has none


def loss_scores(answers: Sequence[Row], name: str = "mia_loss") -> Array:
    """(N,) mean token log-probability (Yeom et al. 2018). answers: N rows (T_i,)."""
    return np.array([row.mean() for row in log_probability_rows(name, answers)])


def zlib_scores(answers: Sequence[Row], texts: Sequence[str]) -> Array:
    """(N,) mean log-probability per byte of the compressed text (Carlini et al. 2021)."""
    same_count("mia_zlib", answers=answers, texts=texts)
    sizes = np.array([len(zlib.compress(text.encode())) for text in texts])
    return np.asarray(loss_scores(answers, "mia_zlib") / sizes)


def reference_scores(answers: Sequence[Row], reference: Sequence[Row]) -> Array:
    """(N,) mean log-probability less that of a reference model (Carlini et al. 2021)."""
    same_count("mia_reference", answers=answers, reference=reference)
    return np.asarray(
        loss_scores(answers, "mia_reference") - loss_scores(reference, "mia_reference")
    )


def gradnorm_scores(norms: Row) -> Array:
    """(N,) negative norms of the loss gradient, one per answer (Wang et al. 2024)."""
    row = number_row("mia_gradnorm", norms)
    if row.min() < 0:
        raise MetricError(f"metric 'mia_gradnorm': a gradient norm is {row.min():g}, below 0")
    return -row


def min_k_scores(answers: Sequence[Row], share: float = LOWEST_SHARE) -> Array:
    """(N,) mean of the lowest share of token log-probabilities (Shi et al. 2024)."""
    rows = log_probability_rows("mia_min_k", answers)
    return np.array([_mean_of_lowest(row, share) for row in rows])


def min_k_plus_plus_scores(
    answers: Sequence[Row],
    means: Sequence[Row],
    deviations: Sequence[Row],
    share: float = LOWEST_SHARE,
) -> Array:
    """(N,) as Min-K, each token standardised over the vocabulary (Zhang et al. 2024).

    means, deviations: `vocabulary_moments` at each token, N rows (T_i,) each.
    """
    name = "mia_min_k_plus_plus"
    same_count(name, answers=answers, means=means, deviations=deviations)
    values = log_probability_rows(name, answers)
    centres, widths = number_rows(name, means), number_rows(name, deviations)
    for row, centre, width in zip(values, centres, widths, strict=True):
        same_count(name, tokens=row, means=centre, deviations=width)
    least = np.sqrt(_LEAST_VARIANCE)
    return np.array(
        [
            _mean_of_lowest((row - centre) / np.maximum(width, least), share)
            for row, centre, width in zip(values, centres, widths, strict=True)
        ]
    )


def vocabulary_moments(log_probs: Row) -> tuple[Array, Array]:
    """(T,) mean and deviation of log p under p itself. log_probs: (T, V) over the vocabulary."""
    rows = as_array(log_probs).astype(np.float64)
    weights = np.exp(rows)
    # A token of probability 0 adds nothing: 0 · log 0 = 0.
    finite = np.where(weights > 0, rows, 0.0)
    mean = (weights * finite).sum(-1)
    variance = (weights * (finite - mean[..., None]) ** 2).sum(-1)
    return mean, np.sqrt(variance)


def auc(name: str, forget: Row, holdout: Row) -> float:
    """Probability that a forget answer scores above a holdout one, ties counted half.

    name: the metric it is the value of. Raises: MetricError if a part is empty or not finite.
    """
    from scipy.stats import rankdata

    members, strangers = number_row(name, forget), number_row(name, holdout)
    ranks = rankdata(np.concatenate([members, strangers]))[: len(members)]
    above = ranks.sum() - len(members) * (len(members) + 1) / 2
    return metric(name).checked(above / (len(members) * len(strangers)))


def privleak(auc_unlearned: float, auc_retain: float) -> float:
    """Relative distance of 1 - AUC from the retain model's, in percent.

    -100: the forget set is as plain to see as ever; above 0: it stands out as what was forgotten.
    Raises: MetricError if the retain model itself is told apart perfectly: nothing to compare with.
    """
    values = [metric("mia_min_k").checked(value) for value in (auc_unlearned, auc_retain)]
    unlearned, retain = (1.0 - value for value in values)
    if retain == 0.0:
        raise MetricError(
            "metric 'privleak': the retain model's AUC is 1, so forget and holdout set differ in "
            "more than having been seen: take a holdout set of the same kind"
        )
    return metric("privleak").checked(100.0 * (unlearned - retain) / retain)


def _mean_of_lowest(row: Array, share: float) -> float:
    if not 0 < share <= 1:
        raise MetricError(f"Min-K needs a share of tokens above 0 and up to 1, not {share}")
    count = max(1, int(len(row) * share))
    return float(np.partition(row, count - 1)[:count].mean())
