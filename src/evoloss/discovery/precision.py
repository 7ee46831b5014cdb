"""Whether bfloat16 ranks losses as single precision does, tried on known ones before a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evoloss.discovery.fitness import fitness
from evoloss.discovery.workbench import Workbench
from evoloss.errors import UserError
from evoloss.lang.expr import scaled
from evoloss.propose.fixed import zoo_losses

LEAST_AGREEMENT = 0.9
FACTORS = (1.0, 0.1)
"""Each known loss also as a multiple, for there are few of them."""


def check_precision(bench: Workbench) -> None:
    """Raises: UserError where bfloat16 is asked for and ranks known losses otherwise."""
    if bench.settings.precision == "float32":
        return
    found = agreement(bench)
    if not found >= LEAST_AGREEMENT:
        raise UserError(
            f"precision=bf16 ranks the known losses otherwise than float32 does (Spearman's rho "
            f"{found:.2f}, at least {LEAST_AGREEMENT} is wanted): leave it out for this network"
        )


def agreement(bench: Workbench) -> float:
    """Spearman's ρ between the errors after a training in float32 and one in bfloat16."""
    errors = [_errors(bench, precision) for precision in ("float32", "bf16")]
    ranks = [_ranks(each) for each in errors]
    with np.errstate(invalid="ignore"):  # NaN, where all ranks of one are the same
        return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _errors(bench: Workbench, precision: str) -> list[float]:
    """After one training of each known loss; infinite where it broke down."""
    task = bench.task
    classes = task.episodes.search(0).train.y.shape[1]
    losses = [
        scaled(loss, factor) for _, loss in zoo_losses(task.output, classes) for factor in FACTORS
    ]
    settings = replace(bench.settings, precision=precision)
    own = Workbench(task, settings, bench.stacking)
    with own.threads():
        scores = fitness(own, losses, own.fitness_trials[:1], racing=False)
    return [score.error if np.isfinite(score.error) else np.inf for score in scores]


def _ranks(errors: list[float]) -> NDArray[np.float64]:
    """Ranks from 1, their mean for equal errors."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(errors), dtype=np.float64)
