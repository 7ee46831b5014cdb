"""A part of a problem, ready to be trained and measured on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evoloss.unlearn.data.example import Example
from evoloss.unlearn.objective import Sets
from evoloss.unlearn.prepared import Prepared
from evoloss.unlearn.recipes import Measured

SEARCHING, TESTING = "searching", "testing"
"""The names of the phases that every problem has."""


def of_finals(number: int) -> str:
    """The name of the phase that the finalists' adapters of a number, from 1, are in."""
    return f"{SEARCHING} {number}"


def division(name: str) -> int:
    """Which division of what is to be kept a phase trains on: a number of finals, else 0."""
    return int(name.removeprefix(SEARCHING) or 0) if name != TESTING else 0


@dataclass(frozen=True)
class Phase:
    """Data to train on, data to measure on, and what two other models score on the latter.

    examples: of each row of the forget set. original: the model before unlearning; retain: one
    that never saw the forget set, if given.
    """

    name: str
    sets: Sets
    examples: tuple[Example, ...]
    prepared: Prepared
    original: Measured
    retain: Measured | None


@dataclass(frozen=True)
class Known:
    """What it takes models to find out of a phase: references of its sets, and two measurements.

    forget, kept: (N, T) token log-probabilities; kept is None if nothing kept is trained on.
    """

    forget: Tensor
    kept: Tensor | None
    original: Measured
    retain: Measured | None

    @classmethod
    def of(cls, phase: Phase) -> Known:
        """What has been found out of a phase."""
        forget, kept = phase.sets.forget.reference, phase.sets.retain
        return cls(
            forget.cpu(),
            None if kept is None else kept.reference.cpu(),
            phase.original,
            phase.retain,
        )
