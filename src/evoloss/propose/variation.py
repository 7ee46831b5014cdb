"""Losses of one structure, varied: their constants, epochs and learning rate, all at once.

Trees that differ in their constants alone are one structure. Known losses win or lose by the weight
of their terms and by the learning rate more than by their form, so that a structure is judged
fairly only where these are tuned. That is an evolution strategy with recombination in logarithms
(Beyer & Schwer 2002): around the weighted mean of its best members, by steps that shrink with
their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evoloss.lang.expr import Call, Const, Expr, size, subtree
from evoloss.lang.expr import replace as with_subtree
from evoloss.propose.proposer import Individual, Space

SPREAD = 0.7
"""Standard deviation of the logarithm of what a constant or a learning rate is multiplied by."""
MEMBERS = 3
"""So many of a structure are recombined."""
MOVED = 0.5
"""The chance that a coordinate changes; one changes in any case."""
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
    places = [
        at
        for at in range(size(first.expression))
        if all(_scale(each.expression, at) for each in chosen)
    ]
    moves = _moves(2 + len(places), spread, rng)

    logs = np.array([[_scale(each.expression, at) for at in places] for each in chosen])
    expression = first.expression
    for at, log, move in zip(places, weights @ np.log(np.abs(logs)), moves[2:], strict=True):
        sign = math.copysign(1.0, _scale(expression, at))
        constant = Const(float(f"{sign * math.exp(log + move):.6g}"))
        expression = with_subtree(expression, at, constant)
    rate = math.exp(weights @ np.log([each.rate for each in chosen]) + moves[0] + _lean(first))
    epochs = weights @ np.array([each.epochs or space.most_epochs or 1 for each in chosen])
    return Varied(
        expression,
        _within(round(epochs * math.exp(moves[1])), space.most_epochs),
        float(f"{min(max(rate, RATES[0]), RATES[-1]):.6g}"),
        tuple(each.id for each in chosen),
    )


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


def measured(individual: Individual) -> Mapping[str, float]:
    """What was measured of a training, in its end or when it dropped out."""
    return individual.details.get("metrics") or individual.details.get("at_rung") or {}


def _scale(expr: Expr, at: int) -> float:
    """The constant there; 0 if there is none, or one that no factor changes."""
    found = subtree(expr, at)
    return found.value if isinstance(found, Const) else 0.0


def _moves(count: int, spread: float, rng: np.random.Generator) -> list[float]:
    """Of each coordinate's logarithm: of most 0, and never of all."""
    moved = rng.random(count) < MOVED
    moved[rng.integers(count)] = True
    return list(np.where(moved, spread * rng.standard_normal(count), 0.0))


def _lean(individual: Individual) -> float:
    """A little more learning for who forgot less than it kept.

    No less for the others: at a larger rate, what is to be kept is learnt again faster too.
    """
    values = measured(individual)
    return SPREAD / 4 if values.get("forgetting", 1.0) < values.get("utility_kept", 0.0) else 0.0


def _within(epochs: int, most: int | None) -> int | None:
    return None if most is None else min(max(epochs, 1), most)
