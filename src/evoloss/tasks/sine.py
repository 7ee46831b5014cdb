"""Few-shot regression of sinusoids, the distribution of tasks of Finn et al. 2017 (MAML), § 5.1.

An episode is one sinusoid: amplitude from U[0.2, 5], phase from U[-π, π], inputs from U[-5, 5].
A network trains on a few support points and is scored on query points of the same sinusoid.
Sinusoids for meta-training and for meta-testing are drawn from separate streams of random numbers,
each keyed by its index, so that none is both and none depends on how many were drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from evoloss.tasks.compose import compose
from evoloss.tasks.options import Options
from evoloss.tasks.task import Data, Episode, Task

SUPPORT = 20
QUERIES = 100
SINUSOIDS = 1_000
AMPLITUDES = (0.2, 5.0)
INPUTS = (-5.0, 5.0)
_META_TRAINING, _META_TESTING = 0, 1


@dataclass(frozen=True)
class Sinusoids:
    """Meta-training sinusoids as search episodes and other, meta-testing ones as test episodes."""

    seed: int
    distinct: int = SINUSOIDS
    support: int = SUPPORT
    queries: int = QUERIES

    def search(self, index: int) -> Episode:
        """The meta-training sinusoid of that index."""
        return self._episode(_META_TRAINING, index)

    def test(self, index: int) -> Episode:
        """The meta-testing sinusoid of that index."""
        return self._episode(_META_TESTING, index)

    def _episode(self, stream: int, index: int) -> Episode:
        key = (stream, index % self.distinct)
        draws = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        amplitude, phase = draws.uniform(*AMPLITUDES), draws.uniform(-np.pi, np.pi)
        x = draws.uniform(*INPUTS, size=(self.support + self.queries, 1))
        y = amplitude * np.sin(x - phase)
        inputs, targets = (torch.from_numpy(array.astype(np.float32)) for array in (x, y))
        cut = self.support
        return Episode(Data(inputs[:cut], targets[:cut]), Data(inputs[cut:], targets[cut:]))


def sine(options: Options) -> Task:
    """Sinusoids for 2 × 40 ReLU units, as in MAML.

    A fitness averages over ten sinusoids: their amplitudes differ 25-fold, and the squared error
    with the square of that, so one alone would say more about itself than about the loss.
    """
    note = (
        f"{SINUSOIDS:,} sinusoids for meta-training, {SINUSOIDS:,} others for meta-testing; "
        f"each with {SUPPORT} points to train on and {QUERIES} to score"
    )
    return compose(
        "sine",
        Sinusoids(options.seed),
        "regression",
        options.network or "mlp:40,40",
        episodes_per_fitness=10,
        notes=(note,),
    )
