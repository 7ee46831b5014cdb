"""Scores of a whole model: forget quality, model utility, and what a search selects by.

Forget quality and model utility are TOFU's (Maini et al. 2024); the published selection scores are
EvoMU's (Batorski & Swoboda 2026).

The default objective, `balance`, is our own: the harmonic mean of the share of knowledge that is
gone and the share of utility that is kept, both relative to the original model and cut at 1. No
degenerate model can win it, for it is at most twice the smaller of its parts. An untouched model
has forgotten nothing and scores 0; one that is destroyed, or refuses every question, has no utility
and scores 0. Under the published averages either of them gets up to a half. The cut at 1 keeps
gains on one side from paying for losses on the other: with a retain model, forgetting further than
by never having learnt earns nothing. Nor do gains in one part of the utility pay for losses in
another: each part is compared with itself. (The ratio of two harmonic means would follow its
smallest part. On a small model that knew TOFU, where that is the truth ratio, answers to be kept
fell from a probability of 0.96 to 0.81 and from a ROUGE of 0.97 to 0.82, the truth ratio rose from
0.29 to 0.37, and by that ratio everything was kept.)

`balance95` is for those who may lose next to nothing: whatever keeps 95 % of the utility is ahead
of whatever does not; the former are compared by balance, the latter by how much they keep (Deb
2000, "An efficient constraint handling method for genetic algorithms").
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Literal

from evoloss.errors import unknown
from evoloss.unlearn.metrics.rows import Row, number_row
from evoloss.unlearn.metrics.table import MetricError, metric, value_of

Objective = Literal["balance", "balance95", "tofu_score", "muse_score"]
OBJECTIVES: tuple[Objective, ...] = ("balance", "balance95", "tofu_score", "muse_score")
OBJECTIVE_PARTS: dict[str, tuple[str, ...]] = {
    "balance": ("forgetting", "utility_kept"),
    "balance95": ("forgetting", "utility_kept"),
    "tofu_score": ("model_utility", "forget_rouge", "forget_prob"),
    "muse_score": ("forget_verbmem", "forget_knowmem", "retain_knowmem", "privleak"),
}
"""The values that each is made of."""
LEAST_KEPT = 0.95
"""Of the utility, by `balance95`."""

UTILITY_PARTS = tuple(
    f"{where}_{what}"
    for where in ("retain", "real_authors", "world_facts")
    for what in ("prob", "rouge", "truth_ratio")
)


def forget_quality(log_ratios: Row, retain_log_ratios: Row) -> float:
    """p-value of the test that both models' truth ratios are of one distribution.

    log_ratios, retain_log_ratios: (N,), (M,) logarithms of R on the forget set, of the unlearned
    and of the retain model; the test compares ranks, which a logarithm leaves alone.
    """
    from scipy.stats import ks_2samp

    name = "forget_quality"
    found, wanted = number_row(name, log_ratios), number_row(name, retain_log_ratios)
    return metric(name).checked(float(ks_2samp(found, wanted).pvalue))


def harmonic_mean(parts: Mapping[str, float | None], name: str = "model_utility") -> float:
    """Harmonic mean of values of 0 to 1, 0 if one is 0: the utility of whatever can be measured.

    Raises: MetricError if there is none, or one is missing, not finite or out of range.
    """
    if not parts:
        raise MetricError(f"metric '{name}' has no parts")
    values = [_share(f"{name}: {part}", value) for part, value in parts.items()]
    # A value so small that the sum of inverses may overflow: the mean is 0 to every digit.
    if min(values) < len(values) * sys.float_info.min:
        return 0.0
    return metric(name).checked(len(values) / math.fsum(1.0 / value for value in values))


def knowledge(prob: float | None, rouge_l: float | None = None) -> float:
    """How much of a set is known: the mean of Prob and ROUGE-L recall, Prob if that is all."""
    known = _share("prob", prob)
    return known if rouge_l is None else (known + _share("rouge_l_recall", rouge_l)) / 2


def forgetting(after: float, original: float, retain_model: float = 0.0) -> float:
    """Share of the original model's knowledge of the forget set that is gone, 0 to 1.

    after, original, retain_model: `knowledge` of the forget set of the three models. Without a
    retain model the floor is 0, which asks for more than never having learnt would give.
    Raises: MetricError if the original model knows no more than the floor: nothing to forget.
    """
    values = {"after": after, "original": original, "retain model": retain_model}
    gone, known, floor = (_share(f"forgetting: {which}", value) for which, value in values.items())
    if known <= floor:
        raise MetricError(
            f"the original model knows {known:.3g} of the forget set and a model that never saw it "
            f"{floor:.3g}: there is nothing to forget, check the model and the forget set"
        )
    return metric("forgetting").checked(min(max((known - gone) / (known - floor), 0.0), 1.0))


def utility_kept(after: Mapping[str, float | None], original: Mapping[str, float | None]) -> float:
    """Harmonic mean of the parts of utility, each over the original model's and at most 1.

    after: with all parts of `original`. A part that is 0 there cannot be lost, and is left out.
    Raises: MetricError if none is left.
    """
    kept: dict[str, float | None] = {}
    for name, value in original.items():
        before = _share(f"utility_kept: {name} before", value)
        now = _share(f"utility_kept: {name}", after.get(name))
        if before > 0.0:
            kept[name] = min(now / before, 1.0)
    if not kept:
        raise MetricError(
            "the original model has a utility of 0 on the retain set: there is nothing to keep, "
            "check the model and the retain set"
        )
    return harmonic_mean(kept, "utility_kept")


def balance(values: Mapping[str, float | None]) -> float:
    """The default objective, of the values of 'forgetting' and 'utility_kept'; see above."""
    parts = {name: value_of(values, name) for name in ("forgetting", "utility_kept")}
    return harmonic_mean(parts, "balance")


def balance95(values: Mapping[str, float | None]) -> float:
    """The balance of a model that keeps `LEAST_KEPT`, else how far below it is, less than 0."""
    found, (kept,) = balance(values), _shares(values, "utility_kept")
    return metric("balance95").checked(found if kept >= LEAST_KEPT else kept - LEAST_KEPT)


def tofu_score(values: Mapping[str, float | None]) -> float:
    """EvoMU's selection score on TOFU, of 'model_utility', 'forget_rouge' and 'forget_prob'."""
    utility, rouge, prob = _shares(values, "model_utility", "forget_rouge", "forget_prob")
    return metric("tofu_score").checked(_mean(utility, _mean(1 - rouge, 1 - prob)))


def muse_score(values: Mapping[str, float | None]) -> float:
    """EvoMU's selection score on MUSE.

    values: 'forget_verbmem', 'forget_knowmem', 'retain_knowmem' (ROUGE-L F1, 0 to 1), 'privleak'.
    The term for PrivLeak is 1 at 0 and falls to 0 at 100 percent on either side.
    """
    verbatim, known, kept = _shares(values, "forget_verbmem", "forget_knowmem", "retain_knowmem")
    private = 1 - min(1.0, abs(value_of(values, "privleak")) / 100)
    return metric("muse_score").checked(_mean(_mean(1 - verbatim, 1 - known, private), kept))


def objective(name: str, values: Mapping[str, float | None]) -> float:
    """The value of a selection score, higher is better. Raises: UserError for an unknown name."""
    scores = {"balance": balance, "balance95": balance95, "tofu_score": tofu_score,
              "muse_score": muse_score}  # fmt: skip
    if name not in scores:
        raise unknown("objective", name, scores)
    return scores[name](values)


def _shares(values: Mapping[str, float | None], *names: str) -> list[float]:
    return [_share(name, values.get(name)) for name in names]


def _share(name: str, value: float | None) -> float:
    if value is None or not 0.0 <= value <= 1.0:  # NaN is not either
        shown = "missing" if value is None else f"{value}, not of 0 to 1"
        raise MetricError(f"metric '{name}' is {shown}")
    return float(value)


def _mean(*values: float) -> float:
    return sum(values) / len(values)
