"""The rejection protocol: a loss whose minimisation does not lower the error is not worth training.

Raymond et al. 2023, § 3.4: a hundred predictions are moved directly by Adam on the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evoloss.discovery.workbench import Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.outputs import transform
from evoloss.lang.expr import Expr


def faults(bench: Workbench, losses: Sequence[Expr]) -> list[str | None]:
    """For each loss (weights bound in) why it is rejected, or None."""
    raw, target = bench.rejection_start
    task = bench.task
    population = LossPopulation(losses, "none")
    moved = population.minimise(
        raw, target, population.initial_phi(), task.output,
        bench.settings.rejection_steps or task.training.rejection_steps, task.training.lr,
    )  # fmt: skip
    before = float(task.metric.errors(transform(raw, task.output)[None], target)[0])
    after = task.metric.errors(transform(moved, task.output), target).tolist()
    return [_fault(before, each, bench) for each in after]


def _fault(before: float, after: float, bench: Workbench) -> str | None:
    metric = bench.task.metric
    if not math.isfinite(after):
        return f"minimising it makes the {metric.name} {after}"
    if after < before:
        return None
    return (
        f"minimising it moves the {metric.name} "
        f"from {metric.shown(before):.4g} to {metric.shown(after):.4g}"
    )
