"""Genetic programming as a proposer, and its two controls that learn nothing from results."""

from __future__ import annotations

from collections.abc import Sequence

from evoloss.propose.gp import GPSettings, initial, mutations, offspring
from evoloss.propose.proposer import Individual, Proposal, Space


def _settings(space: Space) -> GPSettings:
    return GPSettings(population=space.population, parsimony=space.parsimony, retries=space.retries)


class Evolution:
    """EvoMAL's genetic programming: each generation is bred from the last one."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.settings = _settings(space)
        self.people: Sequence[Individual] = ()

    def ask(self, generation: int) -> Sequence[Proposal]:
        """Random trees first, the usual loss among them if wanted; offspring from then on."""
        space = self.space
        if self.people:
            return offspring(
                self.settings, self.people, lambda n: space.random(generation, n), space.avoid
            )
        drawn = initial(self.settings, lambda n: space.random(generation, n), space.avoid)
        return (Proposal(space.usual, "usual loss"), *drawn[1:]) if space.seeded else drawn

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """These are the parents of the next generation."""
        self.people = results


class RandomSearch:
    """Random trees of the same space in every generation (Bergstra & Bengio 2012)."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def ask(self, generation: int) -> Sequence[Proposal]:
        """What evolution starts from, over and over."""
        space = self.space
        drawn = initial(_settings(space), lambda n: space.random(generation, n), space.avoid)
        if space.seeded and generation == 0:
            return (Proposal(space.usual, "usual loss"), *drawn[1:])
        return drawn

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Nothing is learned."""


class BestOfN:
    """Variations of the usual loss, each made without looking at any result.

    What one gets from a generator that is asked N times for the same thing.
    """

    MOST_MUTATIONS = 4

    def __init__(self, space: Space) -> None:
        self.space = space

    def ask(self, generation: int) -> Sequence[Proposal]:
        """One to four mutations of the usual loss for each slot."""
        space = self.space
        drawn = mutations(
            _settings(space), space.usual, self.MOST_MUTATIONS,
            lambda n: space.random(generation, n), space.avoid,
        )  # fmt: skip
        if space.seeded and generation == 0:
            return (Proposal(space.usual, "usual loss"), *drawn[1:])
        return drawn

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Nothing is learned."""
