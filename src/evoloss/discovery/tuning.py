"""Local search: the edge weights φ of many losses at once, by Adam on hyper-gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.discovery.randomness import Purpose, stream
from evoloss.discovery.workbench import Workbench
from evoloss.engine.captured import capturable
from evoloss.engine.fused import FusedDense, Table, fused
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import Adam
from evoloss.lang.expr import Expr
from evoloss.local_search.captured import CapturedHyperGradient
from evoloss.local_search.inner import HyperGradient, Inner

Tick = Callable[[float], None]
_STEPS_A_CALL = 25
"""So that the display moves and Ctrl-C is heard while compiled code runs."""


def tune(bench: Workbench, expressions: Sequence[Expr], tick: Tick) -> list[tuple[float, ...]]:
    """φ of each expression after the settings' local steps; NaN where tuning broke down.

    Each step: a fresh base network, `unroll` SGD steps under the learned loss, the task loss on
    a validation batch, one step of Adam on φ (Raymond et al. 2023, algorithm 2).
    tick: called now and then with the share that is done.
    """
    losses = LossPopulation(expressions, bench.settings.local_weights)
    phi = losses.initial_phi(bench.device)
    settings, first = bench.settings, bench.tuning[0].train
    one_step = settings.local_search == "unrolled" and settings.inner_steps == 1
    one_step = one_step and losses.form(phi) == "fused"
    compiled = fused(bench.stack, bench.tuning_weights[0], first.x, first.y) if one_step else None
    if compiled and (tables := bench.tuning_tables):
        _compiled(bench, losses, phi, compiled, *tables, tick)
    else:
        phi = _step_by_step(bench, losses, phi, tick)
    return _unpadded(phi, losses)


def _compiled(
    bench: Workbench, losses: LossPopulation, phi: Tensor, compiled: FusedDense,
    batches: Table, held_out: Table, tick: Tick,
) -> None:  # fmt: skip
    """Tunes φ in place, many steps a call."""
    usual = LossPopulation([bench.usual], "none")
    adam = Adam(bench.settings.meta_lr)
    moments = torch.zeros_like(phi), torch.zeros_like(phi)
    total = len(bench.tuning)
    for done in range(0, total, _STEPS_A_CALL):
        steps = range(done, min(done + _STEPS_A_CALL, total))
        part = slice(steps.start, steps.stop)
        theta = torch.cat([bench.tuning_weights[number] for number in steps])
        compiled.tune(
            phi, moments, done, adam, losses, usual, theta, batches.part(part),
            held_out.part(part), bench.task.output, bench.sgd,
        )  # fmt: skip
        tick(steps.stop / total)


def _step_by_step(bench: Workbench, losses: LossPopulation, phi: Tensor, tick: Tick) -> Tensor:
    """The tuned φ, by the settings' local search over the whole stack."""
    settings = bench.settings
    hypergradient: HyperGradient = LOCAL_SEARCHES[settings.local_search].make(settings)
    inner = Inner(
        stack=bench.stack,
        losses=losses,
        usual=LossPopulation([bench.usual] * len(losses), "none"),
        output=bench.task.output,
        sgd=bench.sgd,
        device=bench.device,
    )
    adam = Adam(settings.meta_lr)
    state = adam.init(phi)
    one_step = settings.local_search == "unrolled" and settings.inner_steps == 1
    if bench.graphs and one_step and capturable(bench.stack, losses, phi):
        hypergradient = CapturedHyperGradient(bench.graphs, inner, phi)
    for number, step in enumerate(bench.tuning):
        bench.stack.reseed(number)
        rows = torch.from_numpy(step.inner_rows).to(bench.device)
        batches = [(step.train.x[each], step.train.y[each]) for each in rows]
        seen = torch.from_numpy(step.validation_rows).to(bench.device)
        validation = (step.validation.x[seen], step.validation.y[seen])
        theta = bench.tuning_weights[number]
        rng = stream(settings.seed, Purpose.LOCAL_SEARCH, number)
        slope = hypergradient(inner, theta, batches, validation, phi, rng)
        phi, state = adam.update(phi, slope, state)
        tick((number + 1) / len(bench.tuning))
    return phi


def _unpadded(phi: Tensor, losses: LossPopulation) -> list[tuple[float, ...]]:
    widths = losses.programs.weights.tolist()
    return [tuple(row[:width]) for row, width in zip(phi.tolist(), widths, strict=True)]
