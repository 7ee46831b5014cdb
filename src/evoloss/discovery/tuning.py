"""Local search: the edge weights φ of many losses at once, by Adam on exact hyper-gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evoloss.discovery.workbench import Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import Adam
from evoloss.lang.expr import Expr
from evoloss.local_search.unrolled import Inner, hypergradient


def tune(
    bench: Workbench, expressions: Sequence[Expr], tick: Callable[[float], None]
) -> list[tuple[float, ...]]:
    """φ of each expression after the settings' local steps; NaN where tuning broke down.

    Each step: a fresh base network, `unroll` SGD steps under the learned loss, the task loss on
    a validation batch, one step of Adam on φ (Raymond et al. 2023, algorithm 2).
    tick: called now and then with the share that is done.
    """
    losses = LossPopulation(expressions)
    inner = Inner(
        stack=bench.stack,
        losses=losses,
        usual=LossPopulation([bench.usual] * len(losses), "none"),
        output=bench.task.output,
        sgd=bench.sgd,
    )
    adam = Adam(bench.settings.meta_lr)
    phi = losses.initial_phi()
    state = adam.init(phi)
    for number, step in enumerate(bench.tuning):
        bench.stack.reseed(number)
        rows = torch.from_numpy(step.inner_rows)
        batches = [(step.train.x[each], step.train.y[each]) for each in rows]
        seen = torch.from_numpy(step.validation_rows)
        validation = (step.validation.x[seen], step.validation.y[seen])
        theta = bench.tuning_weights[number]
        slope = hypergradient(inner, theta, batches, validation, phi)
        phi, state = adam.update(phi, slope, state)
        tick((number + 1) / len(bench.tuning))
    return _unpadded(phi, losses)


def _unpadded(phi: Tensor, losses: LossPopulation) -> list[tuple[float, ...]]:
    widths = losses.programs.weights.tolist()
    return [tuple(row[:width]) for row, width in zip(phi.tolist(), widths, strict=True)]
