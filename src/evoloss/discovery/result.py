"""What a search hands back: the losses it found, with what they cost and what they are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoloss.discovery.budgets import Ending
from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.errors import UserError
from evoloss.lang.expr import Expr, complexity, scaled
from evoloss.lang.text import to_text
from evoloss.lang.types import Output

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FoundLoss:
    """A candidate as its user sees it.

    error: validation error (lower is better), the mean over fresh seeds for a finalist.
    scale: the multiple of the candidate's loss that did best; momentum, lr: of the training, if
    those were tuned with it.
    output: the transform between the network's raw output and the prediction f; None for a loss
    of log-probabilities, which has no f.
    """

    candidate: Candidate
    error: float
    output: Output | None
    scale: float = 1.0
    momentum: float | None = None
    lr: float | None = None

    @property
    def expression(self) -> Expr:
        """The loss with its tuned weights and scale: what is printed is what is computed."""
        return scaled(self.candidate.loss, self.scale)

    @property
    def complexity(self) -> int:
        """Nodes of the structure, weights not counted; the weights of a neural network are."""
        return complexity(self.candidate.expression)

    def __str__(self) -> str:
        return to_text(self.expression, digits=4)

    def to_torch(self) -> nn.Module:
        """A module called as `loss(prediction, target)`, prediction the network's raw output.

        Raises: UserError for a loss of log-probabilities.
        """
        from evoloss.lang.export.torch_source import to_torch

        if self.output is None:
            raise UserError("an unlearning loss takes no prediction: export it as a function")
        return to_torch(self.expression, self.output)


def found_losses(
    outcome: Mapping[str, Any], history: Sequence[Candidate], output: Output | None
) -> tuple[FoundLoss, tuple[FoundLoss, ...]]:
    """The best loss and the Pareto front of a finished search, from what its store keeps."""
    found = finals(outcome, history, output)
    return found[outcome["best"]], tuple(found[id] for id in outcome["front"])


def finals(
    outcome: Mapping[str, Any], history: Sequence[Candidate], output: Output | None
) -> dict[int, FoundLoss]:
    """The finalists of a finished search, by id."""
    return {
        each["id"]: FoundLoss(
            history[each["id"]], each["error"], output, each["scale"], each["momentum"], each["lr"]
        )
        for each in outcome["finals"]
    }


@dataclass(frozen=True)
class Budget:
    """What a search spent, in all and by stage.

    candidates: proposals; evaluated: those that were trained; steps: base-network gradient steps
    of tuning, training and the finalists; seconds: {stage: wall time}.
    """

    candidates: int
    evaluated: int
    steps: int
    seconds: dict[str, float]

    @classmethod
    def of(
        cls,
        history: Sequence[Candidate | Summary],
        seconds: Mapping[str, float],
        outcome: Mapping[str, Any] | None,
    ) -> Budget:
        """What these candidates cost."""
        fates = Counter(each.fate for each in history)
        return cls.counted(fates, sum(each.steps for each in history), seconds, outcome)

    @classmethod
    def counted(
        cls,
        fates: Mapping[Fate, int],
        steps: int,
        seconds: Mapping[str, float],
        outcome: Mapping[str, Any] | None,
    ) -> Budget:
        """What saved generations cost, and the scoring of the finalists where that is done."""
        finalists = (outcome or {}).get("finalists")
        extra = {"finalists": finalists["seconds"]} if finalists else {}
        return cls(
            candidates=sum(fates.values()),
            evaluated=fates.get(Fate.SCORED, 0) + fates.get(Fate.RACED_OUT, 0),
            steps=steps + (finalists["steps"] if finalists else 0),
            seconds={**seconds, **extra},
        )


@dataclass(frozen=True)
class Result:
    """The outcome of a search. front: Pareto-optimal in (error, complexity), simplest first.

    history: all candidates; those of a stored run are read from it when they are asked for.
    ended: the budget that ended it, None of a run whose store does not tell.
    """

    best: FoundLoss
    front: tuple[FoundLoss, ...]
    history: Sequence[Candidate]
    budget: Budget
    run: Path | None
    ended: Ending | None = None
