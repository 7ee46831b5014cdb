"""What every proposer offers: it is asked for a generation of losses and told how they fared.

A proposer never evaluates and never touches a file. What it asks may depend on what it was told
and on the generators it is given, so telling it the stored generations brings it back to where a
broken-off search stood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evoloss.lang.expr import Expr
from evoloss.lang.types import Output


@dataclass(frozen=True)
class Individual:
    """A member of the population. error: lower is better; None or not finite is the worst."""

    id: int
    expression: Expr
    error: float | None


@dataclass(frozen=True)
class Proposal:
    """A loss to try, how it was made, and the ids of the individuals it was made from."""

    expression: Expr
    operator: str
    parents: tuple[int, ...] = ()


RandomOf = Callable[[int], np.random.Generator]
"""The generator of a slot of a generation."""
Avoid = Callable[[Expr], bool]
"""Whether an expression was seen before."""


@dataclass(frozen=True)
class Space:
    """What is searched and how much at a time.

    population: losses in a generation; parsimony, retries: see `GPSettings`; usual: the task's
    usual loss; seeded: whether to start from it; output: the transform that makes f.
    random: the generator of a generation's slot; avoid: tells what was seen before.
    """

    population: int
    parsimony: float
    retries: int
    usual: Expr
    seeded: bool
    output: Output
    random: Callable[[int, int], np.random.Generator]
    avoid: Avoid


class Proposer(Protocol):
    """Ask and tell, in turn, generation by generation."""

    def ask(self, generation: int) -> Sequence[Proposal]:
        """The losses of a generation, at most `population` of them; none ends the search."""
        ...

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """How the losses of that generation fared, in the order they were asked."""
        ...
