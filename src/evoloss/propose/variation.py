"""Losses of one structure, varied: their constants, epochs and learning rate, all at once.

Trees that differ in their constants alone are one structure. Known losses win or lose by the weight
of their terms and by the learning rate more than by their form, so that a structure is judged
fairly only where these are tuned. That is an evolution strategy with recombination in logarithms
(Beyer & Schwer 2002): around the weighted mean of its best members, by steps that shrink with
their number. What the best member fell short of moves that mean: the rate up where too little was
forgotten, and the weight of what is to be kept to where it balances the two, as a multiplier of
Lagrange would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evoloss.lang.expr import Call, Const, Expr, children, inputs_of, size
from evoloss.lang.expr import replace as with_subtree
from evoloss.propose.proposer import Individual, Space

SPREAD = 0.7
"""Standard deviation of the logarithm of what a constant or a learning rate is multiplied by."""
MEMBERS = 3
"""So many of a structure are recombined."""
MOVED = 0.5
"""The chance that a coordinate changes; one changes in any case."""
GAP = 0.1
"""From so much between what was forgotten and what was kept on, the mean is moved no further."""
RATES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(-6, 7))
"""Multiples of the learning rate that are drawn at first, from an eighth to eight times."""


@dataclass(frozen=True)
class Varied:
    """A loss with its training."""

    expression: Expr
    epochs: int | None
    rate: float
    parents: tuple[int, ...]


def structure(expr: Expr) -> Expr:
    """The expression with 1 in place of every constant."""
    match expr:
        case Const():
            return Const(1.0)
        case Call(op, args):
            return Call(op, tuple(structure(each) for each in args))
    return expr


def structures(ranked: Sequence[Individual]) -> list[list[Individual]]:
    """Individuals, the best first, by structure; that of the best individual first."""
    found: dict[Expr, list[Individual]] = {}
    for each in ranked:
        found.setdefault(structure(each.expression), []).append(each)
    return list(found.values())


def varied(members: Sequence[Individual], space: Space, rng: np.random.Generator) -> Varied:
    """Another one of the structure of some individuals, the best first."""
    chosen = members[:MEMBERS]
    weights = np.array([1.0 / (1 + rank) for rank in range(len(chosen))])
    weights /= weights.sum()
    spread = SPREAD / math.sqrt(len(chosen))
    first = chosen[0]
    every = zip(*(_places(each.expression) for each in chosen), strict=True)
    free = [same for same in every if all(each.value for each in same) and not _complement(same)]
    moves = _moves(2 + len(free), spread, rng)
    more_rate, more_kept = _leans(first)

    expression = first.expression
    for same, move in zip(free, moves[2:], strict=True):
        place = same[0]
        log = weights @ np.log([abs(each.value) for each in same]) + move
        log += more_kept if place.keeps else 0.0
        constant = Const(float(f"{math.copysign(math.exp(log), place.value):.6g}"))
        expression = with_subtree(expression, place.at, constant)
    rate = math.exp(weights @ np.log([each.rate for each in chosen]) + moves[0] + more_rate)
    epochs = weights @ np.array([each.epochs or space.most_epochs or 1 for each in chosen])
    return Varied(
        expression,
        _within(round(epochs * math.exp(moves[1])), space.most_epochs),
        float(f"{min(max(rate, RATES[0]), RATES[-1]):.6g}"),
        tuple(each.id for each in chosen),
    )


def jittered(expr: Expr, rng: np.random.Generator) -> Expr:
    """One constant times a random factor; the same expression if it has none."""
    places = _places(expr)
    if not places:
        return expr
    place = places[int(rng.integers(len(places)))]
    factor = math.exp(SPREAD * rng.standard_normal())
    return with_subtree(expr, place.at, Const(float(f"{place.value * factor:.6g}")))


def measured(individual: Individual) -> Mapping[str, float]:
    """What was measured of a training, in its end or when it dropped out."""
    return individual.details.get("metrics") or individual.details.get("at_rung") or {}


@dataclass(frozen=True)
class _Place:
    """A constant of an expression, at a pre-order position, and what it is an operand of."""

    at: int
    value: float
    parent: Call | None

    @property
    def keeps(self) -> bool:
        """Whether it is a factor of what is to be kept, and of nothing else."""
        if self.parent is None or self.parent.op != "mul":
            return False
        inputs = inputs_of(self.parent)
        return bool(inputs) and all(name.endswith("_retain") for name in inputs)


def _places(expr: Expr, at: int = 0, parent: Call | None = None) -> list[_Place]:
    """All constants, in pre-order."""
    if isinstance(expr, Const):
        return [_Place(at, expr.value, parent)]
    found: list[_Place] = []
    at += 1
    for child in children(expr):
        assert isinstance(expr, Call)
        found += _places(child, at, expr)
        at += size(child)
    return found


def _complement(same: Sequence[_Place]) -> bool:
    """Whether this is the 1 of a 1 - p, in all members: what it stands in is no parameter."""
    parent = same[0].parent
    sums = parent is not None and parent.op in ("add", "sub")
    return sums and all(each.value == 1.0 for each in same)


def _moves(count: int, spread: float, rng: np.random.Generator) -> list[float]:
    """Of each coordinate's logarithm: of most 0, and never of all."""
    moved = rng.random(count) < MOVED
    moved[rng.integers(count)] = True
    return list(np.where(moved, spread * rng.standard_normal(count), 0.0))


def _leans(individual: Individual) -> tuple[float, float]:
    """What is added to the logarithms of the rate and of the weights of what is to be kept.

    Who forgot less than it kept gets a larger rate, but nobody a smaller one: at a larger rate,
    what is to be kept is learnt again faster too. Small gaps move little: who forgets just enough
    of what a search asks forgets too little of the rest.
    """
    values = measured(individual)
    if "forgetting" not in values or "utility_kept" not in values:
        return 0.0, 0.0
    gap = (values["forgetting"] - values["utility_kept"]) / GAP
    gap = min(max(gap, -1.0), 1.0)
    return max(-gap, 0.0) * SPREAD / 4, gap * SPREAD / 2


def _within(epochs: int, most: int | None) -> int | None:
    return None if most is None else min(max(epochs, 1), most)
