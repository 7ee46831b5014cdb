"""A candidate loss and what became of it: the record that stages, archive and store share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from evoloss.lang.expr import Expr
from evoloss.lang.weights import bind


class Fate(StrEnum):
    """Where a candidate's way through the stages ended."""

    SCORED = "scored"  # trained to the full budget
    DUPLICATE = "duplicate"  # same canonical form as an earlier one, whose result it takes over
    EQUIVALENT = "equivalent"  # same gradients as an earlier one, whose result it takes over
    REJECTED = "rejected"  # minimising it did not lower the error
    RACED_OUT = "raced out"  # behind the others part of the way through its training
    FAILED = "failed"  # NaN or infinity in tuning, training or metric


class Summary(NamedTuple):
    """What the archive remembers of every candidate, without its expression.

    form: a digest of what makes duplicates; untuned, tuned: of its gradients, None without any.
    """

    id: int
    generation: int
    fate: Fate
    error: float | None
    steps: int
    form: bytes
    complexity: int
    untuned: bytes | None
    tuned: bytes | None

    @property
    def merit(self) -> tuple[float, int, int]:
        """The lowest error first; of equals the simplest, then the earliest."""
        return math.inf if self.error is None else self.error, self.complexity, self.id


@dataclass(frozen=True)
class Candidate:
    """One proposal of one generation.

    id: in the order of proposals, from 0 in each run.
    operator: how it was proposed; parents: ids of the candidates it was made from.
    expression: the unweighted structure; phi: the tuned weights on its edges, or None untuned.
    error: what selection compares, lower is better; None if it has none (rejected, failed).
    same_as: id of the candidate whose result was taken over.
    reason: why it was dropped, in words; empty for a scored one.
    steps: base-network gradient steps spent on it (tuning and training).
    epochs: of its training, where a proposal says how long to train; None elsewhere. rate: the
        multiple of the learning rate that it asks for.
    details: what else its training told, plain JSON data: metrics, a learning curve.
    """

    id: int
    generation: int
    index: int
    operator: str
    parents: tuple[int, ...]
    expression: Expr
    canonical: str
    phi: tuple[float, ...] | None = None
    fate: Fate = Fate.SCORED
    reason: str = ""
    error: float | None = None
    same_as: int | None = None
    steps: int = 0
    epochs: int | None = None
    rate: float = 1.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> Expr:
        """The expression with its weights bound in: what was trained with."""
        return self.expression if self.phi is None else bind(self.expression, self.phi)
