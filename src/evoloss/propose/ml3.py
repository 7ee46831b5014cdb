"""ML³: neural networks as losses, each tuned further generation by generation.

Bechtle et al. 2021, "Meta-learning via learned loss" (arXiv 1906.05374). The tuning is the local
search; a generation is a part of it, after which every network has a fitness. The best of all
parts and networks is found: early stopping, over several starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evoloss.lang.network import SHAPES, Network
from evoloss.propose.proposer import Individual, Proposal, Space


def fresh_network(rng: np.random.Generator) -> Network:
    """A network with the initial weights of torch's linear layers: uniform in ±1/√inputs."""
    parts = [
        rng.uniform(-1.0, 1.0, rows * inputs) / math.sqrt(inputs) for rows, inputs in SHAPES
    ]  # fmt: skip
    return Network.of(np.concatenate(parts).tolist())


class ML3:
    """Goes on with each network where its tuning ended; starts anew where that led nowhere."""

    looks_back = 1

    def __init__(self, space: Space) -> None:
        self.space = space
        self.people: Sequence[Individual] = ()

    def ask(self, generation: int) -> Sequence[Proposal]:
        """Random networks first, the tuned ones from then on."""
        slots = range(self.space.population)
        if not self.people:
            return tuple(self._fresh(generation, slot, "initial") for slot in slots)
        return tuple(
            self._fresh(generation, slot, "restarted")
            if each.error is None or math.isnan(each.error)
            else Proposal(each.expression, "continued", (each.id,))
            for slot, each in enumerate(self.people)
        )

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Their expressions hold the tuned weights."""
        self.people = results

    def _fresh(self, generation: int, slot: int, operator: str) -> Proposal:
        return Proposal(fresh_network(self.space.random(generation, slot)), operator)
