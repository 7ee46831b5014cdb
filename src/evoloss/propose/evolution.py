"""Genetic programming as a proposer, and its two controls that learn nothing from results."""

from __future__ import annotations

from collections.abc import Sequence

from evoloss.propose.gp import GPSettings, initial, mutations, offspring, rank
from evoloss.propose.proposer import Individual, Proposal, Space


def _settings(space: Space) -> GPSettings:
    return GPSettings(
        population=space.population, parsimony=space.parsimony, retries=space.retries,
        signature=space.signature,
    )  # fmt: skip


def _given(space: Space) -> tuple[Proposal, ...]:
    """What a search starts from besides what is drawn."""
    if not space.seeded:
        return ()
    others = (Proposal(each, "known loss") for each in space.known if each != space.usual)
    return (Proposal(space.usual, "usual loss"), *others)


def _drawn(space: Space, generation: int, given: Sequence[Proposal]) -> Sequence[Proposal]:
    """Random trees, the first of them replaced by what is given."""
    drawn = initial(_settings(space), lambda n: space.random(generation, n), space.avoid)
    return (*given, *drawn[len(given) :])[: space.population]


class Evolution:
    """EvoMAL's genetic programming: each generation is bred from the last one.

    The best from before are only needed by a proposer that shares its generations with others.
    """

    looks_back = 1

    def __init__(self, space: Space) -> None:
        self.space = space
        self.settings = _settings(space)
        self.people: Sequence[Individual] = ()
        self.best: Sequence[Individual] = ()

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """Random trees first, the given losses among them; offspring from then on.

        count: of a part of the generation. That is its beginning at first, where the given losses
        are, and its end later: no slot of a part is spent on the copy of an elite.
        """
        space = self.space
        wanted = space.population if count is None else min(count, space.population)
        if not self.people:
            return _drawn(space, generation, _given(space))[:wanted]
        people = self.people if wanted == space.population else self._with_elites()
        bred = offspring(self.settings, people, lambda n: space.random(generation, n), space.avoid)
        return bred[len(bred) - wanted :]

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """These are the parents of the next generation."""
        self.people = results
        self.best = rank((*results, *self.best))[: self.settings.elites]

    def _with_elites(self) -> Sequence[Individual]:
        """The last generation and the best from before, of which nobody made copies."""
        present = {each.id for each in self.people}
        return (*self.people, *(each for each in self.best if each.id not in present))


class RandomSearch:
    """Random trees of the same space in every generation (Bergstra & Bengio 2012)."""

    looks_back = 0

    def __init__(self, space: Space) -> None:
        self.space = space

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """What evolution starts from, over and over."""
        given = _given(self.space) if generation == 0 else ()
        return _drawn(self.space, generation, given)[:count]

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Nothing is learned."""


class BestOfN:
    """Variations of the usual loss, each made without looking at any result.

    What one gets from a generator that is asked N times for the same thing.
    """

    MOST_MUTATIONS = 4
    looks_back = 0

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
