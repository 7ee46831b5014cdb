"""A task made ready for a search: its stack of networks, its data, and every random draw by number.

All candidates see the same initial weights and minibatches (common random numbers): scores differ
by the loss alone, and the result of a candidate depends on the run's seed and on nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evoloss.discovery.randomness import Purpose, stream, torch_seed
from evoloss.discovery.settings import Settings
from evoloss.engine.captured import Graphs
from evoloss.engine.device import resolved
from evoloss.engine.fused import Table
from evoloss.engine.memory import budget, bytes_per_copy, fitting
from evoloss.engine.optimisers import SGD
from evoloss.engine.precision import HalfPrecision
from evoloss.engine.stack import Stack
from evoloss.engine.stacking import choose, make_stack, stacked_densely
from evoloss.engine.training import InitialWeights, fresh_network, fresh_weights, minibatches
from evoloss.lang.expr import Expr
from evoloss.lang.parse import parse
from evoloss.tasks.task import Data, Episode, Splits, Task, placed

REJECTION_ROWS = 100
SMALL_SPLIT = 2000
"""With fewer validation rows, training and validation data are dealt out anew where it helps."""
ENOUGH_ROWS, MOST_SPLITS = 500, 5
"""A fitness validates on about so many rows, over so many splits at most."""


@dataclass(frozen=True)
class Trial:
    """One base training: data, initial weights (1, D) and minibatches (steps, B)."""

    train: Data
    held_out: Data
    initial: Tensor
    batches: NDArray[np.int64]


@dataclass(frozen=True)
class TuningStep:
    """The data of one step of local search: K inner batches and a validation batch, by row."""

    train: Data
    validation: Data
    inner_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]


class Workbench:
    """What the stages share. `stacking` is the choice of `choose`, or None to make it now."""

    def __init__(
        self, task: Task, settings: Settings, stacking: dict[str, str] | None = None
    ) -> None:
        self.task = task
        self.settings = settings
        self.device = torch.device(resolved(settings.device))
        self.episodes = placed(task.episodes, self.device)
        self.graphs = Graphs() if self.device.type == "cuda" else None
        # Seeded for what is not trained: frozen layers and buffers may be random as well.
        seed = torch_seed(settings.seed, Purpose.INITIAL_WEIGHTS)
        module = fresh_network(task.network, seed).to(self.device)
        x = self.episodes.search(0).train.x[: task.training.batch]
        self.stacking = stacking or _chosen(module, settings, x)
        stack: Stack = make_stack(module, self.stacking)
        self.stack = HalfPrecision(stack) if settings.precision == "bf16" else stack
        training = task.training
        self.sgd = SGD(training.lr, training.momentum, training.nesterov, training.weight_decay)
        self.usual: Expr = parse(task.usual_loss)

    @property
    def dense(self) -> bool:
        """Whether base networks are perceptrons, written out as batched matrix products."""
        return self.stacking["train"] == "dense"

    @property
    def fitness_seeds(self) -> int:
        """How many trainings a fitness averages over: more where there is little to validate on."""
        given, episodes = self.settings.fitness_seeds, self.episodes
        if given is not None or not isinstance(episodes, Splits):
            return given or 1
        return min(MOST_SPLITS, math.ceil(ENOUGH_ROWS / max(1, len(episodes.validation))))

    @property
    def fitting(self) -> int:
        """How many losses of a generation the memory of the device does for at a time.

        Raises: UserError if it does not do for one.
        """
        most = budget(self.device, self.settings.memory)
        if most is None:
            return self.settings.population
        trials = self.fitness_seeds * self.task.episodes_per_fitness
        x = self.episodes.search(0).train.x[: self.task.training.batch]
        module = fresh_network(self.task.network, 0).to(self.device)
        unroll = 1 if self.settings.local_search == "none" else self.settings.inner_steps
        a_copy = bytes_per_copy(module, x, trials, unroll)
        return fitting(most, a_copy, self.settings.population)

    @property
    def fitness_steps(self) -> int:
        """Base training steps before the validation score."""
        return self.settings.fitness_steps or self.task.training.steps

    def with_momentum(self, momentum: float) -> Workbench:
        """The same, but for the momentum of the base training."""
        other = copy.copy(self)
        other.sgd = replace(self.sgd, momentum=momentum, nesterov=bool(momentum))
        return other

    def threads(self) -> AbstractContextManager[None]:
        """Within it, torch uses as many threads as were found best for this network."""
        return _torch_threads(int(self.stacking["threads"]))

    @cached_property
    def tuning(self) -> tuple[TuningStep, ...]:
        """The steps of local search, the same for every candidate."""
        steps, inner = self.settings.local_steps, self.settings.inner_steps
        rng = stream(self.settings.seed, Purpose.TUNING_BATCHES)
        episodes, batch = self.episodes, self.task.training.batch
        if episodes.distinct == 1:
            episode = episodes.search(0)
            inner_rows = minibatches(len(episode.train), batch, steps * inner, rng)
            rows = minibatches(len(episode.held_out), batch, steps, rng)
            return tuple(
                TuningStep(
                    episode.train,
                    episode.held_out,
                    inner_rows[step * inner : (step + 1) * inner],
                    rows[step],
                )
                for step in range(steps)
            )
        found = []
        for index in rng.integers(episodes.distinct, size=steps):
            episode = episodes.search(int(index))
            inner_rows = minibatches(len(episode.train), batch, inner, rng)
            rows = minibatches(len(episode.held_out), batch, 1, rng)[0]
            found.append(TuningStep(episode.train, episode.held_out, inner_rows, rows))
        return tuple(found)

    @cached_property
    def tuning_tables(self) -> tuple[Table, Table] | None:
        """`tuning` for one-step unrolls as two tables: of minibatches and of validation batches.

        None where batches differ in size from step to step.
        """
        steps = self.tuning
        if len({(step.inner_rows.shape, step.validation_rows.shape) for step in steps}) > 1:
            return None
        return (
            _table([(step.train, step.inner_rows[0]) for step in steps]),
            _table([(step.validation, step.validation_rows) for step in steps]),
        )

    @cached_property
    def tuning_weights(self) -> InitialWeights:
        """A fresh base network for every step of local search."""
        return InitialWeights(
            [
                torch_seed(self.settings.seed, Purpose.INITIAL_WEIGHTS, step)
                for step in range(self.settings.local_steps)
            ],
            self.task.network,
            self.device,
        )

    @cached_property
    def fitness_trials(self) -> tuple[Trial, ...]:
        """The base trainings that one fitness averages over."""
        count = self.fitness_seeds * self.task.episodes_per_fitness
        return tuple(self.trial(Purpose.FITNESS_BATCHES, n) for n in range(count))

    def final_trials(self, seeds: int) -> tuple[Trial, ...]:
        """Other base trainings, for scoring the finalists without the luck of selection."""
        count = seeds * self.task.episodes_per_fitness
        return tuple(self.trial(Purpose.FINALISTS, n) for n in range(count))

    def trial(self, purpose: Purpose, number: int) -> Trial:
        """The base training of a number: an episode, initial weights and minibatches."""
        seed, episodes = self.settings.seed, self.episodes
        rng = stream(seed, purpose, number)
        index = int(rng.integers(episodes.distinct))
        episode = self._episode(purpose, index, rng)
        return Trial(
            episode.train,
            episode.held_out,
            fresh_weights(self.task.network, torch_seed(seed, purpose, number), self.device),
            minibatches(len(episode.train), self.task.training.batch, self.fitness_steps, rng),
        )

    def _episode(self, purpose: Purpose, index: int, rng: np.random.Generator) -> Episode:
        """Other splits for finalists, and for a fitness of several trainings, of a small data set.

        Otherwise the best of a thousand losses is the one that suits the validation rows.
        """
        episodes = self.episodes
        if purpose is Purpose.EVALUATION:
            return episodes.test(index)
        resplit = purpose is Purpose.FINALISTS or self.fitness_seeds > 1
        if resplit and isinstance(episodes, Splits) and len(episodes.validation) < SMALL_SPLIT:
            return episodes.resplit(rng)
        return episodes.search(index)

    @cached_property
    def rejection_start(self) -> tuple[Tensor, Tensor]:
        """Raw outputs (R, C) of a fresh network on some training inputs, and their targets.

        On the CPU: so few rows are moved faster there, by compiled kernels, than on a GPU.
        """
        rng = stream(self.settings.seed, Purpose.REJECTION)
        train = self.episodes.search(0).train
        rows = torch.from_numpy(rng.permutation(len(train))[:REJECTION_ROWS]).to(self.device)
        seed = torch_seed(self.settings.seed, Purpose.REJECTION)
        theta = fresh_weights(self.task.network, seed, self.device)
        raw = self.stack.predict(theta, train.x[rows])[0]
        return raw.cpu().double(), train.y[rows].cpu().double()


def _chosen(module: nn.Module, settings: Settings, x: Tensor) -> dict[str, str]:
    """How networks are stacked: all of a generation, or a shard of it on one thread.

    Perceptrons as if all were together: numbers of theirs are the same in shards.
    """
    if settings.shard is None or stacked_densely(module, settings.stacking):
        return choose(module, settings.stacking, settings.population, x)
    with _torch_threads(1):
        return choose(module, settings.stacking, min(settings.shard, settings.population), x)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _table(steps: Sequence[tuple[Data, NDArray[np.int64]]]) -> Table:
    """The data of all steps in one, each data set once, and the rows of each step in it."""
    begins: dict[int, int] = {}
    parts: list[Data] = []
    total = 0
    for data, _ in steps:
        if id(data) not in begins:
            begins[id(data)] = total
            parts.append(data)
            total += len(data)
    x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
    return Table.of(x, y, np.stack([begins[id(data)] + rows for data, rows in steps]))
