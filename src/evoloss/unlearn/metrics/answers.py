"""Metrics of how well a model knows answers: one value per answer, to be averaged by `average`.

Definitions of TOFU (Maini et al. 2024) and OpenUnlearning. Log-probabilities and matches are those
of the answer's tokens only. Probabilities count the end token; for extraction strength and exact
memorisation leave it out, as OpenUnlearning does, or a text cut short could never be extracted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evoloss.unlearn.metrics.rows import Row, log_probability_rows, match_rows, same_count
from evoloss.unlearn.metrics.table import Array, MetricError


def probabilities(answers: Sequence[Row], name: str = "prob") -> Array:
    """(N,) exp of the mean token log-probability. answers: N rows (T_i,) of log-probabilities."""
    return np.exp(_means(name, answers))


def probabilities_among_options(
    answers: Sequence[Row], alternatives: Sequence[Sequence[Row]]
) -> Array:
    """(N,) Prob of each answer over the sum of Prob of it and its alternatives."""
    name = "prob_among_options"
    same_count(name, answers=answers, alternatives=alternatives)
    right = _means(name, answers)
    return np.array(
        [
            np.exp(mean - np.logaddexp.reduce([mean, *_means(name, others)]))
            for mean, others in zip(right, alternatives, strict=True)
        ]
    )


def log_truth_ratios(true: Sequence[Row], perturbed: Sequence[Sequence[Row]]) -> Array:
    """(N,) logarithms of R, the mean Prob of the perturbed answers over Prob of the true one.

    true: the paraphrased answers, or the answers themselves where there are no paraphrases.
    As logarithms, because both probabilities of a broken model may be too small for a float.
    The mean is the arithmetic one of the paper; OpenUnlearning's code takes the geometric.
    """
    name = "truth_ratio"
    same_count(name, true=true, perturbed=perturbed)
    wrong = np.array(
        [np.logaddexp.reduce(_means(name, each)) - np.log(len(each)) for each in perturbed]
    )
    return np.asarray(wrong - _means(name, true))


def forget_truth_ratios(log_ratios: Array) -> Array:
    """(N,) min(R, 1/R): 1 where true and false answers are equally probable."""
    return np.exp(-np.abs(log_ratios))


def truth_ratios(log_ratios: Array) -> Array:
    """(N,) max(0, 1 - R): 1 where false answers are improbable beside the true one."""
    return -np.expm1(np.minimum(log_ratios, 0.0))


def extraction_strengths(matches: Sequence[Row]) -> Array:
    """(N,) share of the answer that follows its last token missed by the greedy prediction.

    matches: N rows (T_i,), true where the arg max under the true prefix is the answer's token.
    """
    rows = match_rows("extraction_strength", matches)
    return np.array([_matching_tail(row) / len(row) for row in rows])


def exact_memorisation(matches: Sequence[Row]) -> Array:
    """(N,) share of tokens that the arg max matches. matches: as for extraction strength."""
    return np.array([row.mean() for row in match_rows("exact_memorisation", matches)])


def choices_right(choices: Sequence[Sequence[Row]], right: Sequence[int]) -> Array:
    """(N,) 1 where the right choice has the highest log-probability, else 0.

    choices: for each question the token log-probabilities of every choice; right: their indices.
    k choices tied at the top count 1/k, so that a model that tells nothing apart scores as chance
    does and not by where the right choice stands.
    """
    name = "multiple_choice"
    same_count(name, questions=choices, answers=right)
    if not len(choices):
        raise MetricError(f"metric '{name}' has no questions to measure")
    credits = []
    for number, (each, index) in enumerate(zip(choices, right, strict=True)):
        totals = np.array([row.sum() for row in log_probability_rows(name, each)])
        if not 0 <= index < len(totals):
            raise MetricError(
                f"metric '{name}': question {number} has {len(totals)} choices, none is {index}"
            )
        best = totals == totals.max()
        credits.append(best[index] / best.sum())
    return np.array(credits)


def _means(name: str, answers: Sequence[Row]) -> Array:
    return np.array([row.mean() for row in log_probability_rows(name, answers)])


def _matching_tail(row: Array) -> int:
    missed = np.flatnonzero(~row)
    return len(row) - 1 - int(missed[-1]) if len(missed) else len(row)
