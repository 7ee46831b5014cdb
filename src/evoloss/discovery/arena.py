"""Where losses compete: what the loop asks of a kind of task.

There are two: networks trained on labelled data (`supervised`) and language models that are to
forget (`evoloss.unlearn`). The loop, its stages, the archive and the store are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.loop_settings import LoopSettings
from evoloss.discovery.race import Racing
from evoloss.lang.expr import Expr, complexity
from evoloss.lang.types import Output
from evoloss.propose.proposer import Proposer, Space

Tick = Callable[[float], None]
"""Told what share of a stage is done."""


@dataclass(frozen=True)
class Tuned:
    """The weights of a loss after local search, not finite where it broke down.

    steps: training steps that it took. reason: why it broke down, if that is known.
    """

    phi: tuple[float, ...]
    steps: int
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate in training.

    error: lower is better, None if there is none; steps: gradient steps it took; rungs: errors at
    the rungs of the race that it came to; details: as a candidate keeps them.
    """

    fate: Fate
    error: float | None
    steps: int
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    rungs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Final:
    """A finalist, the multiple of it that does best, and its mean error with that.

    momentum, lr: of the training, where those were tuned too; None for the task's own.
    errors: one a trial.
    """

    candidate: Candidate
    error: float
    scale: float = 1.0
    momentum: float | None = None
    errors: tuple[float, ...] = ()
    lr: float | None = None

    @property
    def complexity(self) -> int:
        """Nodes of the candidate's structure."""
        return complexity(self.candidate.expression)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the store."""
        return {"id": self.candidate.id, "error": self.error, "scale": self.scale,
                "momentum": self.momentum, "lr": self.lr}  # fmt: skip


class Arena(Protocol):
    """A task, ready for losses to be tried on it.

    usual: what one would train with otherwise. output: the transform that makes f of a network's
    output, None for losses that have no f.
    """

    @property
    def settings(self) -> LoopSettings: ...

    @property
    def output(self) -> Output | None: ...

    def threads(self) -> AbstractContextManager[None]:
        """Within it, computations use as many threads as suit them."""

    def space(self, common: Mapping[str, Any]) -> Space:
        """What is searched. common: the fields of a Space that the loop knows."""

    def proposer(self, space: Space) -> Proposer:
        """The proposer of the settings' method."""

    def fingerprint(self, loss: Expr) -> str | None:
        """A key that losses with the same gradients share; None for one without any."""

    def faults(self, losses: Sequence[Expr]) -> list[str | None]:
        """What a cheap test finds wrong with each loss; None if nothing is."""

    def tune(self, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
        """The tuned weights of each loss."""

    def score(self, candidates: Sequence[Candidate], racing: Racing, tick: Tick) -> list[Outcome]:
        """Trains with each candidate's loss and validates."""

    def finals(self, candidates: Sequence[Candidate]) -> tuple[list[Final], int]:
        """The best candidates scored once more, and the gradient steps that took.

        Those whose mean is not finite are left out.
        """

    def shown(self, error: float) -> float:
        """The value of the metric for an error."""
