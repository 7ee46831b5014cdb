"""Genetic programming of unlearning losses: few and costly, so that nothing good is thrown away.

A (μ + λ) scheme: parents are the best of all losses so far, not of the last generation. A random
loss has a term for each of the two sets, as every published one does. Most children have the
structure of one of the best losses, with other constants and another training; the others have a
new structure. The leading structures are tried on the other level too, of answers or of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from evoloss.lang.expr import Call, Expr
from evoloss.lang.types import Type
from evoloss.propose.gp import (
    GPSettings,
    crossover,
    mutate,
    random_expression,
    rank,
    repair,
    select,
)
from evoloss.propose.levels import other_level
from evoloss.propose.proposer import Individual, Proposal, Space
from evoloss.propose.variation import (
    RATES,
    jittered,
    measured,
    structure,
    structures,
    varied,
)

FUNCTIONS = (
    "add", "sub", "mul", "aq", "min", "max", "neg", "abs", "square", "sqrt", "exp", "tanh",
    "sigmoid", "logsigmoid", "softplus", "relu",
)  # fmt: skip
KNOWN = ("usual loss", "known loss")
"""Operators of losses that others have written."""
LEVEL = "level"
"""Operator of losses that are others on the other level."""
CHANCES = {"crossover": 0.2, "mutation": 0.15, "varied": 0.65}
"""Of each way to make a child; the last one keeps the structure."""
FIRST_STRUCTURE = 0.5
"""The chance that what is varied is the best structure, of the rest the second, and so on."""
LEADERS = 2
"""So many of the best structures are tried on the other level."""
LARGER_RATE = RATES[-4]
LOST = 0.5
"""Who keeps a smaller share of the utility would lose more at a larger rate."""

Breed = Callable[[np.random.Generator], Proposal]


class UnlearningRandom:
    """Random losses of the same space in every generation, known ones among the first."""

    all_given = False
    """Whether known losses that do not fit into the first generation come in the next ones."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.settings = _settings(space)
        self.known = self.given = _known(space)
        self.tried = 0

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """What evolution starts from, over and over.

        Who asks for one more part of the first generation gets the known losses that are left.
        """
        wanted = self.space.population if count is None else count
        given = self.given[:wanted] if generation == 0 or self.all_given else ()
        self.given = self.given[len(given) :]
        made = [
            _drawn(self._random, self.space, self.space.random(generation, slot))
            for slot in range(wanted - len(given))
        ]
        return (*given, *made)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Nothing is learned."""

    def _random(self, rng: np.random.Generator) -> Proposal:
        return Proposal(
            random_loss(self.settings, rng), "initial", (), _epochs(self.space, rng), _rate(rng)
        )


class UnlearningZoo(UnlearningRandom):
    """The known losses, then the same with other constants, epochs and learning rates: a control.

    What evolution finds beyond it is not owed to constants and rates alone.
    """

    all_given = True

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Known losses that have been tried are done with, in a resumed search too.

        They come in their order; what their constants are by now is up to the local search.
        """
        self.tried += sum(_is_known(each) for each in results)
        self.given = self.known[max(self.tried, len(self.known) - len(self.given)) :]

    def _random(self, rng: np.random.Generator) -> Proposal:
        loss = self.space.known[int(rng.integers(len(self.space.known)))]
        if rng.random() < 0.5:
            loss = jittered(loss, rng)
        return Proposal(loss, "varied", (), _epochs(self.space, rng), _rate(rng))


class UnlearningEvolution(UnlearningRandom):
    """Known losses first; children of the best so far from then on.

    Which of them are good is a matter of the rate: SimNPO, whose gradient on the forget set is
    small, forgets next to nothing at one that suits others, and CE-U keeps more at a larger one,
    for what is to be kept is learnt again faster too. So all are tried again at a larger rate, but
    those that have lost most of what was to be kept. Others are good on the other level alone, so
    that the leading structures are tried there as soon as they lead, at both rates as well.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.again: tuple[Proposal, ...] = ()
        self.best: list[Individual] = []
        self.tried_structures: set[Expr] = set()

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """The losses of a generation, or the first `count` of them."""
        if not self.best:
            return super().ask(generation, count)
        ranked = rank(self.best)
        wanted = self.space.population if count is None else count
        given, self.again = self.again[:wanted], self.again[wanted:]
        given = (*given, *self._on_other_levels(ranked, wanted - len(given)))
        made = [
            _drawn(
                lambda rng: self._child(ranked, rng), self.space,
                self.space.random(generation, slot),
            )
            for slot in range(wanted - len(given))
        ]  # fmt: skip
        return (*given, *made)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """The best `population` of all losses told so far are kept."""
        # A resumed search is told of generations that this proposer was not asked for.
        asked = {each.parents for each in results if each.operator.endswith((*KNOWN, LEVEL))}
        again = (each for each in self.again if each.parents not in asked)
        self.again = (*again, *(_again(each) for each in results if _may_gain(each)))
        self.tried_structures |= {structure(each.expression) for each in results}
        able = [each for each in (*self.best, *results) if _finite(each.error)]
        alike: dict[object, Individual] = {}
        for each in sorted(able, key=lambda each: (each.error, each.id)):
            alike.setdefault((each.expression, each.epochs, each.rate), each)
        self.best = list(alike.values())[: self.space.population]

    def _on_other_levels(self, ranked: Sequence[Individual], most: int) -> list[Proposal]:
        """The best losses of the leading structures on levels that these were not tried on."""
        found: list[Proposal] = []
        for first, *_ in structures(ranked)[:LEADERS]:
            other = other_level(first.expression)
            if other is None or structure(other) in self.tried_structures:
                continue
            if len(found) < most and not self.space.avoid(other, first.epochs, first.rate):
                # At once: who is asked twice for parts of a generation is not told in between.
                self.tried_structures.add(structure(other))
                found.append(Proposal(other, LEVEL, (first.id,), first.epochs, first.rate))
        return found

    def _child(self, ranked: Sequence[Individual], rng: np.random.Generator) -> Proposal:
        how = list(CHANCES)[int(rng.choice(len(CHANCES), p=list(CHANCES.values())))]
        if how == "varied":
            return self._varied(ranked, rng)
        first = select(self.settings, ranked, rng)
        tree, parents = first.expression, [first.id]
        if how == "crossover":
            others = [each for each in ranked if each.id != first.id]
            second = select(self.settings, others or ranked, rng)
            parents.append(second.id)
            tree = crossover(self._typed(tree, second.expression), tree, second.expression, rng)
        else:
            tree = mutate(self._typed(tree), tree, rng)
        tree = repair(self._typed(tree), tree, rng)
        return Proposal(tree, how, tuple(parents), first.epochs, first.rate)

    def _varied(self, ranked: Sequence[Individual], rng: np.random.Generator) -> Proposal:
        """One of the best structures, each less likely than the one before."""
        every = structures(ranked)
        which = min(int(rng.geometric(FIRST_STRUCTURE)), len(every)) - 1
        found = varied(every[which], self.space, rng)
        return Proposal(found.expression, "varied", found.parents, found.epochs, found.rate)

    def _typed(self, *trees: Expr) -> GPSettings:
        """The settings for children of such trees."""
        return replace(self.settings, signature=self.space.signature_of(*trees))


def _is_known(individual: Individual) -> bool:
    """Whether it is a loss that others have written, tried for the first time."""
    return individual.operator.endswith(KNOWN) and not individual.parents


def _may_gain(individual: Individual) -> bool:
    """Whether it is to be tried again, at a larger rate."""
    small = individual.operator.endswith(LEVEL) and individual.rate < LARGER_RATE
    able = small or _is_known(individual)
    return able and measured(individual).get("utility_kept", 0.0) > LOST


def _again(individual: Individual) -> Proposal:
    operator = LEVEL if individual.operator.endswith(LEVEL) else KNOWN[-1]
    return Proposal(
        individual.expression, operator, (individual.id,), individual.epochs, LARGER_RATE
    )


def _settings(space: Space) -> GPSettings:
    return GPSettings(
        functions=FUNCTIONS, population=max(2, space.population), parsimony=space.parsimony,
        signature=space.signature, initial_heights=(1, 3), max_height=10,
    )  # fmt: skip


def _known(space: Space) -> tuple[Proposal, ...]:
    """Losses that others have written, for as many epochs as there may be."""
    if not space.seeded:
        return ()
    others = (each for each in space.known if each != space.usual)
    return (
        Proposal(space.usual, KNOWN[0], epochs=space.most_epochs),
        *(Proposal(each, KNOWN[1], epochs=space.most_epochs) for each in others),
    )


def _drawn(breed: Breed, space: Space, rng: np.random.Generator) -> Proposal:
    """The first draw that need not be avoided, or the last one."""
    for _ in range(space.retries):
        proposal = breed(rng)
        if not space.avoid(proposal.expression, proposal.epochs, proposal.rate):
            return proposal
    return breed(rng)


def _epochs(space: Space, rng: np.random.Generator) -> int | None:
    return None if space.most_epochs is None else int(rng.integers(1, space.most_epochs + 1))


def _rate(rng: np.random.Generator) -> float:
    return float(RATES[int(rng.integers(len(RATES)))])


def _finite(error: float | None) -> bool:
    return error is not None and math.isfinite(error)


def random_loss(settings: GPSettings, rng: np.random.Generator) -> Expr:
    """A sum of the means of two random trees, one a set; one tree if there is no retain set."""
    terms = []
    for side in ("forget", "retain"):
        own = {n: t for n, t in settings.signature.inputs.items() if n.endswith(f"_{side}")}
        if own:
            part = _restricted(settings, own, f"log_probs_{side}")
            tree = random_expression(part, rng, settings.initial_heights)
            terms.append(Call("mean", (repair(part, tree, rng),)))
    return terms[0] if len(terms) == 1 else Call("add", tuple(terms))


def _restricted(settings: GPSettings, inputs: dict[str, Type], required: str) -> GPSettings:
    """Trees of numbers per sequence, of some inputs only."""
    own = replace(
        settings.signature, inputs=inputs, required=(required,), output=Type.VECTOR,
        reductions=False,
    )  # fmt: skip
    return replace(settings, signature=own)
