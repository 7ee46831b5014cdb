"""Genetic programming of unlearning losses: few and costly, so that nothing good is thrown away.

A (μ + λ) scheme: parents are the best of all losses so far, not of the last generation. A random
loss has a term for each of the two sets, as every published one does. Besides trees, the constants
and the epochs vary, each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from evoloss.lang.expr import Call, Const, Expr, size, subtree
from evoloss.lang.expr import replace as with_subtree
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
from evoloss.propose.proposer import GIVEN, Individual, Proposal, Space

FUNCTIONS = (
    "add", "sub", "mul", "aq", "min", "max", "neg", "abs", "square", "sqrt", "exp", "tanh",
    "sigmoid", "logsigmoid", "softplus", "relu",
)  # fmt: skip
CHANCES = {"crossover": 0.35, "mutation": 0.2, "constants": 0.2, "training": 0.25}
"""Of each way to make a child; the last one leaves the loss as it is."""
ALSO_TRAINING = 0.3
"""The chance that another child's training changes too."""
RATES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(-6, 7))
"""Multiples of the learning rate, from an eighth to eight times."""
LARGER_RATE = RATES[-4]
SPREAD = 0.7
"""Standard deviation of the logarithm of what a constant is multiplied by."""

Breed = Callable[[np.random.Generator], Proposal]


class UnlearningRandom:
    """Random losses of the same space in every generation, known ones among the first."""

    all_given = False
    """Whether known losses that do not fit into the first generation come in the next ones."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.settings = _settings(space)
        self.given = _known(space)

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

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._tried = 0

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Known losses that have been tried are done with, in a resumed search too."""
        self._tried += sum(each.operator in GIVEN for each in results)
        self.given = _known(self.space)[self._tried :]

    def _random(self, rng: np.random.Generator) -> Proposal:
        loss = self.space.known[int(rng.integers(len(self.space.known)))]
        if rng.random() < 0.5:
            loss = jittered(loss, rng)
        return Proposal(loss, "varied", (), _epochs(self.space, rng), _rate(rng))


class UnlearningEvolution(UnlearningRandom):
    """Known losses first, at two learning rates; children of the best so far from then on.

    Losses whose gradient on the forget set is small beside that on the retain set, such as SimNPO,
    forget next to nothing at a rate that suits the others, and would be gone after one generation.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.again = tuple(replace(each, rate=LARGER_RATE) for each in self.given)
        self.best: list[Individual] = []

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """The losses of a generation, or the first `count` of them."""
        if not self.best:
            return super().ask(generation, count)
        ranked = rank(self.best)
        wanted = self.space.population if count is None else count
        given = self.again[:wanted] if generation == 1 else ()
        self.again = self.again[len(given) :]
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
        able = [each for each in (*self.best, *results) if _finite(each.error)]
        alike: dict[object, Individual] = {}
        for each in sorted(able, key=lambda each: (each.error, each.id)):
            alike.setdefault((each.expression, each.epochs, each.rate), each)
        self.best = list(alike.values())[: self.space.population]

    def _child(self, ranked: Sequence[Individual], rng: np.random.Generator) -> Proposal:
        how = list(CHANCES)[int(rng.choice(len(CHANCES), p=list(CHANCES.values())))]
        first = select(self.settings, ranked, rng)
        parents: tuple[int, ...] = (first.id,)
        tree = first.expression
        if how == "crossover":
            others = [each for each in ranked if each.id != first.id]
            second = select(self.settings, others or ranked, rng)
            parents = (first.id, second.id)
            tree = crossover(self._typed(tree, second.expression), tree, second.expression, rng)
        elif how == "mutation":
            tree = mutate(self._typed(tree), tree, rng)
        elif how == "constants":
            tree = jittered(tree, rng)
        epochs, rate = first.epochs, first.rate
        if how == "training" or rng.random() < ALSO_TRAINING:
            epochs, rate = self._trained(epochs, rate, rng)
        return Proposal(repair(self._typed(tree), tree, rng), how, parents, epochs, rate)

    def _typed(self, *trees: Expr) -> GPSettings:
        """The settings for children of such trees."""
        return replace(self.settings, signature=self.space.signature_of(*trees))

    def _trained(
        self, epochs: int | None, rate: float, rng: np.random.Generator
    ) -> tuple[int | None, float]:
        """Other epochs or, more often, another learning rate: a step or two up or down."""
        step = int(rng.choice((-2, -1, 1, 2)))
        if self.space.most_epochs and rng.random() < 1 / 3:
            return min(
                max((epochs or self.space.most_epochs) + step, 1), self.space.most_epochs
            ), rate
        nearest = min(range(len(RATES)), key=lambda at: abs(math.log(RATES[at] / rate)))
        return epochs, RATES[min(max(nearest + step, 0), len(RATES) - 1)]


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
        Proposal(space.usual, "usual loss", epochs=space.most_epochs),
        *(Proposal(each, "known loss", epochs=space.most_epochs) for each in others),
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


def jittered(expr: Expr, rng: np.random.Generator) -> Expr:
    """One constant times a random factor; the same expression if it has none."""
    places = [at for at in range(size(expr)) if isinstance(subtree(expr, at), Const)]
    if not places:
        return expr
    at = places[int(rng.integers(len(places)))]
    found = subtree(expr, at)
    assert isinstance(found, Const)
    factor = math.exp(SPREAD * rng.standard_normal())
    return with_subtree(expr, at, Const(float(f"{found.value * factor:.6g}")))
