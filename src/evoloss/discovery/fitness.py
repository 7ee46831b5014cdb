"""Fitness: a short base training under each loss, then the validation error; optionally a race.

The race is successive halving (Karnin et al. 2013): after a part of the steps only the better
half trains on. Who survives is trained to the full budget, so the survivors' scores compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evoloss.discovery.workbench import Trial, Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.training import Trained, calibration, predict, train
from evoloss.lang.expr import Expr

RUNGS = (0.2, 0.5)
"""At these shares of the steps the worse half drops out."""
SMALLEST_RACE = 4
"""Fewer candidates than this are all trained to the end."""


@dataclass(frozen=True)
class Score:
    """The outcome of one loss's trainings.

    errors: one a trial, at the last step reached; finished: whether that was the full budget.
    """

    errors: tuple[float, ...]
    steps: int
    finished: bool

    @property
    def error(self) -> float:
        """The mean over the trials; NaN or infinite if one of them is."""
        return sum(self.errors) / len(self.errors)


def fitness(
    bench: Workbench,
    losses: Sequence[Expr],
    trials: Sequence[Trial],
    racing: bool,
    tick: Callable[[float], None] = lambda share: None,
) -> list[Score]:
    """The score of each loss (weights bound in), all trained side by side on each trial."""
    total = len(trials[0].batches)
    ends = [*(round(total * rung) for rung in RUNGS if racing), total]
    running = list(range(len(losses)))
    population = LossPopulation(losses, "none")
    states = [Trained.start(trial.initial, len(losses)) for trial in trials]
    scores: dict[int, Score] = {}
    begin = 0
    for end in ends:
        states = [
            _segment(bench, population, trial, state, begin, end)
            for trial, state in zip(trials, states, strict=True)
        ]
        errors = _errors(bench, trials, states)
        for index, each in zip(running, errors, strict=True):
            scores[index] = Score(each, end, end == total)
        kept = _kept([scores[index].error for index in running], racing)
        if not kept or end == total:
            break
        running = [running[row] for row in kept]
        population = LossPopulation([losses[index] for index in running], "none")
        states = [state.select(kept) for state in states]
        begin = end
        tick(end / total)
    return [scores[index] for index in range(len(losses))]


def _segment(
    bench: Workbench, losses: LossPopulation, trial: Trial, state: Trained, begin: int, end: int
) -> Trained:
    data, batches = trial.train, trial.batches[begin:end]
    phi = losses.initial_phi()
    return train(
        state, bench.stack, losses, phi, data.x, data.y, batches, bench.task.output, bench.sgd
    )


def _errors(
    bench: Workbench, trials: Sequence[Trial], states: Sequence[Trained]
) -> list[tuple[float, ...]]:
    """One tuple a loss, one error a trial."""
    columns = []
    for trial, state in zip(trials, states, strict=True):
        seen = calibration(trial.train.x, trial.batches)
        f = predict(bench.stack, state.theta, trial.held_out.x, bench.task.output, seen)
        columns.append(bench.task.metric.errors(f, trial.held_out.y))
    rows: list[list[float]] = torch.stack(columns, dim=1).tolist()
    return [tuple(row) for row in rows]


def _kept(errors: Sequence[float], racing: bool) -> list[int]:
    """The rows that train on, in order: all that are finite, or the better half of them."""
    finite = [row for row, error in enumerate(errors) if math.isfinite(error)]
    if not racing or len(finite) < SMALLEST_RACE:
        return finite
    best = sorted(finite, key=lambda row: (errors[row], row))[: math.ceil(len(finite) / 2)]
    return sorted(best)
