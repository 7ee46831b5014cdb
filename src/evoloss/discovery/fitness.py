"""Fitness: a short base training under each loss, then the validation error; optionally a race."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from evoloss.discovery.race import Racing, Score, race
from evoloss.discovery.workbench import Trial, Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.training import Batches, Trained, calibration, predict, train_each
from evoloss.lang.expr import Expr


def fitness(
    bench: Workbench,
    losses: Sequence[Expr],
    trials: Sequence[Trial],
    racing: Racing,
    tick: Callable[[float], None] = lambda share: None,
    paired: bool = False,
) -> list[Score]:
    """The score of each loss (weights bound in), all trained side by side on each trial.

    paired: whether one that is left alone goes on beside a copy of itself.
    """
    total = len(trials[0].batches)
    return race(_Stacked(bench, losses, trials, paired), len(losses), total, racing, tick)


class _Stacked:
    """Runs all in one stack, which rows leave as they drop out of the race."""

    def __init__(
        self, bench: Workbench, losses: Sequence[Expr], trials: Sequence[Trial], paired: bool
    ) -> None:
        self.paired = paired
        self.bench = bench
        self.losses = losses
        self.trials = trials
        self.rows = list(range(len(losses)))
        self.states = [Trained.start(trial.initial, len(losses)) for trial in trials]

    def advance(self, running: Sequence[int], begin: int, end: int) -> list[tuple[float, ...]]:
        rows = [*running, *running] if self.paired and len(running) == 1 else list(running)
        kept = [self.rows.index(each) for each in rows]
        if rows != self.rows:
            self.states = [state.select(kept) for state in self.states]
        self.rows = rows
        chosen = [self.losses[each] for each in rows]
        self.states, errors = advanced(self.bench, chosen, self.trials, self.states, begin, end)
        return errors[: len(running)]


def advanced(
    bench: Workbench, losses: Sequence[Expr], trials: Sequence[Trial], states: Sequence[Trained],
    begin: int, end: int,
) -> tuple[list[Trained], list[tuple[float, ...]]]:  # fmt: skip
    """Trainings from one step to another: their states, one a trial, and their errors, one a loss.

    An error is a tuple, one of each trial.
    """
    population = LossPopulation(losses, "none")
    batches = [Batches(each.train.x, each.train.y, each.batches[begin:end]) for each in trials]
    after = train_each(
        states, bench.stack, population, population.initial_phi(batches[0].x.device), batches,
        bench.task.output, bench.sgd, bench.graphs,
    )  # fmt: skip
    return after, _errors(bench, trials, after)


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
