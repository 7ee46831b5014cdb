"""The trainings behind pictures 7 to 9, on search episodes only: the test split is not touched.

All losses see the same initial weights and minibatches, and none that the search has used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evoloss.discovery.randomness import Purpose, stream
from evoloss.discovery.workbench import Trial, Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.training import Batches, Trained, calibration, predict, train
from evoloss.lang.expr import Expr
from evoloss.tasks.task import Data

Array = NDArray[np.float64]

SECONDS = 10.0
"""About how long all measurements of a report may take."""

_UNUSED = 1_000_000  # from this number on, no search has drawn a trial
_EPISODES = 10
_RINGS = 100  # points of the landscape for each seed, about
_FEWEST_STEPS = 20
_OCTAVES = tuple(2.0**power for power in range(-4, 5))


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    seeds, steps: of the learning curves; sweep_seeds, factors: of the learning rate's sweep;
    points: of a learning curve; grid: of the landscape, a side; rows: of data to score on.
    full: how many steps the task's own training has.
    """

    seeds: int
    sweep_seeds: int
    factors: tuple[float, ...]
    points: int
    grid: int
    rows: int
    steps: int = 0
    full: int = 0


_PLANS = (
    Plan(5, 5, _OCTAVES, 40, 25, 1000),
    Plan(5, 2, _OCTAVES, 30, 21, 500),
    Plan(3, 1, _OCTAVES, 20, 15, 500),
    Plan(3, 1, _OCTAVES[::2], 12, 11, 300),
    Plan(2, 1, _OCTAVES[::2], 8, 9, 200),
)
"""From the most to the least; only the last one has its training steps cut."""


@dataclass(frozen=True)
class Curves:
    """Trainings at the task's own learning rate. L losses, S seeds, K points.

    steps: (K,) at which was scored; errors: (L, S, K), a seed's mean over its episodes.
    final: for each seed the weights (L, D) of its first episode.
    """

    steps: NDArray[np.int64]
    errors: Array
    final: tuple[Tensor, ...]


@dataclass(frozen=True)
class Arm:
    """A loss to train with, and the momentum if it is not the task's own."""

    loss: Expr
    momentum: float | None = None


def _stacks(bench: Workbench, arms: Sequence[Arm]) -> list[tuple[list[int], LossPopulation, SGD]]:
    """The arms that can be trained side by side: those of one momentum, by number."""
    by_momentum: dict[float | None, list[int]] = {}
    for number, arm in enumerate(arms):
        by_momentum.setdefault(arm.momentum, []).append(number)
    return [
        (
            rows,
            LossPopulation([arms[row].loss for row in rows], "none"),
            bench.sgd if momentum is None else bench.with_momentum(momentum).sgd,
        )
        for momentum, rows in by_momentum.items()
    ]


class Measurements:
    """A task's base network trained under several losses alike, as often as a plan says."""

    def __init__(self, bench: Workbench, arms: Sequence[Arm], seconds: float = SECONDS) -> None:
        self.bench = bench
        self.losses = tuple(arm.loss for arm in arms)
        self._stacks = _stacks(bench, arms)
        self.episodes = min(bench.task.episodes_per_fitness, _EPISODES)
        self.plan = self._affordable(seconds)

    def trial(self, seed: int, episode: int = 0) -> Trial:
        """The base training of a seed, its held-out data cut to the plan's rows."""
        trial = self._whole_trial(seed, episode)
        return replace(trial, held_out=self.some(trial.held_out, seed))

    @property
    def resplit(self) -> bool:
        """Whether seeds differ in which rows are held out, as for small data sets."""
        first, second = (self._whole_trial(seed, 0).held_out for seed in (0, 1))
        return self.bench.task.episodes.distinct == 1 and not torch.equal(first.y, second.y)

    def some(self, data: Data, seed: int) -> Data:
        """As many rows as the plan allows, at random if that is not all of them."""
        if len(data) <= self.plan.rows:
            return data
        rng = stream(self.bench.settings.seed, Purpose.FINALISTS, _UNUSED, seed)
        chosen = rng.permutation(len(data))[: self.plan.rows]
        rows = torch.from_numpy(chosen).to(data.x.device)
        return Data(data.x[rows], data.y[rows])

    def predictions(self, theta: Tensor, x: Tensor, seen: Sequence[Tensor] | None = None) -> Tensor:
        """(P, N, C) predictions f of weights (P, D).

        seen: training minibatches for the statistics of batch norms; None for the first seed's.
        """
        batches = self._first_batches if seen is None else seen
        return predict(self.bench.stack, theta, x, self.bench.task.output, batches)

    @cached_property
    def _first_batches(self) -> list[Tensor]:
        trial = self._whole_trial(0, 0)
        return calibration(trial.train.x, trial.batches)

    @cached_property
    def curves(self) -> Curves:
        """The learning curves, scored on held-out validation data."""
        ends = np.unique(np.geomspace(1, self.plan.steps, self.plan.points).round().astype(int))
        errors, final = [], []
        for seed in range(self.plan.seeds):
            episodes = []
            for episode in range(self.episodes):
                trial = self.trial(seed, episode)
                found, state = self._followed(trial, ends)
                episodes.append(found)
                if episode == 0:
                    final.append(state.theta)
            errors.append(np.mean(episodes, axis=0))
        return Curves(ends, np.stack(errors, axis=1), tuple(final))

    @cached_property
    def sweep(self) -> Array:
        """(F, L, S) errors at the end of training with the learning rate times each factor."""
        ends = np.array([self.plan.steps])
        found = np.empty((len(self.plan.factors), len(self.losses), self.plan.sweep_seeds))
        for row, factor in enumerate(self.plan.factors):
            for seed in range(self.plan.sweep_seeds):
                if factor == 1.0:
                    found[row, :, seed] = self.curves.errors[:, seed, -1]
                    continue
                trials = [self.trial(seed, episode) for episode in range(self.episodes)]
                errors = [self._followed(trial, ends, factor)[0][:, -1] for trial in trials]
                found[row, :, seed] = np.mean(errors, axis=0)
        return found

    def _followed(
        self, trial: Trial, ends: NDArray[np.int64], factor: float = 1.0
    ) -> tuple[Array, Trained]:
        """(L, K) errors at the numbers of steps in `ends`, and the state at the last."""
        state = Trained.start(trial.initial, len(self.losses))
        seen = calibration(trial.train.x, trial.batches)
        columns = []
        for end in ends:
            state = self._trained(state, trial, int(end), factor)
            f = self.predictions(state.theta, trial.held_out.x, seen)
            columns.append(self.bench.task.metric.errors(f, trial.held_out.y).numpy())
        return np.stack(columns, axis=1), state

    def _trained(self, state: Trained, trial: Trial, end: int, factor: float = 1.0) -> Trained:
        data, batches = trial.train, trial.batches[state.steps : end]
        theta, velocity = state.theta.clone(), state.velocity.clone()
        for rows, population, sgd in self._stacks:
            found = train(
                state.select(rows), self.bench.stack, population,
                population.initial_phi(data.x.device), Batches(data.x, data.y, batches),
                self.bench.task.output, replace(sgd, lr=factor * sgd.lr),
            )  # fmt: skip
            theta[rows], velocity[rows] = found.theta, found.velocity
        return Trained(theta, velocity, end)

    def _whole_trial(self, seed: int, episode: int) -> Trial:
        return self.bench.trial(Purpose.FINALISTS, _UNUSED + seed * self.episodes + episode)

    def _affordable(self, seconds: float) -> Plan:
        """The first plan that takes so long at most, or the last one with fewer steps."""
        trial = self._whole_trial(0, 0)
        full = len(trial.batches)
        a_step, a_row = self._seconds(trial)
        for plan in _PLANS:
            sweep = (len(plan.factors) - 1) * plan.sweep_seeds
            trainings = self.episodes * (plan.seeds + sweep)
            rows = min(plan.rows, len(trial.held_out))
            around = plan.grid**2 + plan.seeds * _RINGS
            scored = self.episodes * plan.seeds * plan.points * rows + around * plan.rows
            left = seconds - len(self.losses) * scored * a_row
            steps = int(left / (trainings * a_step))
            if steps >= full:
                return replace(plan, steps=full, full=full)
        return replace(plan, steps=min(full, max(steps, _FEWEST_STEPS)), full=full)

    def _seconds(self, trial: Trial) -> tuple[float, float]:
        """Of a training step under all losses, and of predicting one row with one network."""
        state = self._trained(Trained.start(trial.initial, len(self.losses)), trial, 1)
        last = min(5, len(trial.batches))
        start = time.perf_counter()
        state = self._trained(state, trial, last)
        a_step = (time.perf_counter() - start) / max(last - 1, 1)
        x = trial.held_out.x[:200]
        start = time.perf_counter()
        self.predictions(state.theta, x)
        return a_step, (time.perf_counter() - start) / (len(self.losses) * len(x))
