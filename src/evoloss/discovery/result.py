"""What a search hands back: the losses it found, with what they cost and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evoloss.discovery.candidate import Candidate
from evoloss.lang.expr import Expr, complexity
from evoloss.lang.text import to_text
from evoloss.lang.types import Output

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FoundLoss:
    """A candidate as its user sees it.

    error: validation error (lower is better), the mean over fresh seeds for a finalist.
    output: the transform between the network's raw output and the prediction f.
    """

    candidate: Candidate
    error: float
    output: Output

    @property
    def expression(self) -> Expr:
        """The loss with its tuned weights: what is printed is what is computed."""
        return self.candidate.loss

    @property
    def complexity(self) -> int:
        """Nodes of the structure, weights not counted."""
        return complexity(self.candidate.expression)

    def __str__(self) -> str:
        return to_text(self.expression, digits=4)

    def to_torch(self) -> nn.Module:
        """A module called as `loss(prediction, target)`, prediction the network's raw output."""
        from evoloss.lang.export.torch_source import to_torch

        return to_torch(self.expression, self.output)


@dataclass(frozen=True)
class Budget:
    """What a search spent, in all and by stage.

    candidates: proposals; evaluated: those that were trained; steps: base-network gradient steps
    (tuning and training, without the finalists'); seconds: {stage: wall time}.
    """

    candidates: int
    evaluated: int
    steps: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Result:
    """The outcome of a search. front: Pareto-optimal in (error, complexity), simplest first."""

    best: FoundLoss
    front: tuple[FoundLoss, ...]
    history: tuple[Candidate, ...]
    budget: Budget
    run: Path | None
