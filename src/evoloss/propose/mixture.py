"""Several proposers share each generation; those whose losses improve the search get more of it.

A bandit with Bernoulli rewards that drift: discounted Thompson sampling (Raj and Kalyani 2017,
arXiv 1707.09727). Slot by slot, a success rate is drawn for each member from its beta posterior,
and the highest draw gets the slot; old evidence is discounted, since what helps at first need not
help later. A share of the slots is divided evenly, so that no member is ever given up.

A loss is a success if it is new and would enter the better half of the best `population` losses
that were known before its generation. The yardstick is the same for all members, whatever parents
they work on: to improve on a bad parent is easy, and of no use. A slot that a member could not
fill is a failure. Losses that a search is given at its start count for nobody.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from evoloss.lang.canonical import canonical_text
from evoloss.propose.proposer import Individual, Member, Proposal, Space

FLOOR = 0.1
"""Share of a generation that every member has in any case, and one slot at least."""
DISCOUNT = 0.8
"""Of the evidence, from one generation to the next: it counts for about five."""
SLOTS = 1 << 24
"""Every member has so many slots of random streams to itself, in either round of asking."""
_GIVEN = ("usual loss", "known loss")
"""Operators of losses that nobody made."""

MakeMember = Callable[[Space], Member]


class Mixture:
    """Asks its members for parts of a generation, and tells each of them of all of it.

    members: by name, in one word, what makes each of them from the space that it is to search.
    An operator is preceded by its member's name, by which `tell` knows whose loss it was.
    """

    def __init__(self, space: Space, members: Mapping[str, MakeMember]) -> None:
        if not members or any(" " in name for name in members):
            raise ValueError(f"members {list(members)}: at least one is needed, named in one word")
        self.space = space
        self._round = 0
        self.members = {
            name: make(replace(space, random=self._streams(place, len(members))))
            for place, (name, make) in enumerate(members.items())
        }
        self.evidence = dict.fromkeys(members, (0.0, 0.0))
        """Successes and failures of each member, discounted."""
        self._seen: set[tuple[str, int | None, float]] = set()
        self._scored: list[Individual] = []

    def ask(self, generation: int) -> Sequence[Proposal]:
        """Every member's share; what one cannot fill is made by the others."""
        shares = self.shares(generation)
        found: list[Proposal] = []
        able = []
        self._round = 0
        for name, share in shares.items():
            own = self._asked(name, generation, share)
            found += own
            if len(own) == share:
                able.append(name)
        self._round = 1  # so that nobody makes the same losses again
        for name in sorted(able, key=lambda name: -self._rate(name)):
            found += self._asked(name, generation, self.space.population - len(found))
        return tuple(found)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """All members get to know all losses."""
        self._judge(generation, results)
        for member in self.members.values():
            member.tell(generation, results)

    def shares(self, generation: int) -> dict[str, int]:
        """How many slots each member has: its floor, and those it wins."""
        rng = self.space.random(generation, 0)
        slots, names = self.space.population, list(self.members)
        floor = min(max(1, int(FLOOR * slots)), slots // len(names))
        found = dict.fromkeys(names, floor)
        for _ in range(slots - floor * len(names)):
            drawn = {
                name: rng.beta(1.0 + good, 1.0 + bad) for name, (good, bad) in self.evidence.items()
            }
            found[max(names, key=lambda name: drawn[name])] += 1
        return found

    def _asked(self, name: str, generation: int, count: int) -> list[Proposal]:
        """So many losses of a member at most, with its name before their operators."""
        if count <= 0:
            return []
        found = self.members[name].ask(generation, count)[:count]
        return [
            each
            if each.operator.split(" ")[0] == name
            else replace(each, operator=f"{name} {each.operator}")
            for each in found
        ]

    def _judge(self, generation: int, results: Sequence[Individual]) -> None:
        """Counts successes and failures, and remembers what was told."""
        shares = self.shares(generation)
        good = dict.fromkeys(shares, 0)
        tried = dict.fromkeys(shares, 0)
        goal = self._goal(results)
        for each in results:
            name, _, operator = each.operator.partition(" ")
            form = canonical_text(each.expression), each.epochs, each.rate
            new = form not in self._seen
            self._seen.add(form)
            if name not in shares:
                continue
            if operator in _GIVEN:
                shares[name] -= 1
                continue
            tried[name] += 1
            good[name] += new and _error(each) < goal
        for name, (wins, losses) in self.evidence.items():
            failures = max(shares[name], tried[name]) - good[name]
            self.evidence[name] = (DISCOUNT * wins + good[name], DISCOUNT * losses + failures)
        self._scored = _best([*self._scored, *results], self.space.population)

    def _goal(self, results: Sequence[Individual]) -> float:
        """What a loss must be below to be a success: at first, the middle of its generation."""
        before = self._scored or _best(results, len(results))
        return statistics.median(map(_error, before)) if before else -math.inf

    def _rate(self, name: str) -> float:
        """The mean of a member's success rate."""
        good, bad = self.evidence[name]
        return (1.0 + good) / (2.0 + good + bad)

    def _streams(self, place: int, members: int) -> Callable[[int, int], np.random.Generator]:
        """Random streams that no other member and no other round of asking has."""

        def random(generation: int, slot: int) -> np.random.Generator:
            begin = SLOTS * (1 + place + members * self._round)
            return self.space.random(generation, begin + slot)

        return random


def _error(individual: Individual) -> float:
    error = individual.error
    return error if error is not None and math.isfinite(error) else math.inf


def _best(people: Sequence[Individual], count: int) -> list[Individual]:
    """The best with a score, each expression once."""
    found: dict[object, Individual] = {}
    for each in sorted(people, key=lambda each: (_error(each), each.id)):
        if _error(each) < math.inf:
            found.setdefault(each.expression, each)
    return list(found.values())[:count]
