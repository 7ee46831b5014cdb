"""The Pareto front of unlearning: losses of which no other forgets and keeps as much for less."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.lang.text import to_text
from evoloss.store.entry import Entry

C = TypeVar("C", Candidate, Entry)


class Point(NamedTuple):
    """forgotten, kept: shares of what the model knew; epochs: passes over the forget set."""

    forgotten: float
    kept: float
    epochs: int

    def beats(self, other: Point) -> bool:
        """Whether it is nowhere worse, and somewhere better."""
        no_worse = (
            self.forgotten >= other.forgotten
            and self.kept >= other.kept
            and self.epochs <= other.epochs
        )
        return no_worse and self != other


def point(candidate: Candidate | Entry, epochs: int) -> Point | None:
    """Where a scored loss stands; None if it was not measured on both sets.

    epochs: of those that do not ask for a number of their own.
    """
    metrics = candidate.details.get("metrics", {}) if candidate.fate is Fate.SCORED else {}
    if not {"forgetting", "utility_kept"} <= set(metrics):
        return None
    return Point(metrics["forgetting"], metrics["utility_kept"], candidate.epochs or epochs)


def front(candidates: Iterable[C], epochs: int) -> list[tuple[C, Point]]:
    """Those that no other beats, what keeps most first; of equals the earliest."""
    found = [(each, point(each, epochs)) for each in candidates]
    points = {own: each for each, own in reversed(found) if own is not None}
    best = [own for own in points if not any(other.beats(own) for other in points)]
    return [(points[own], own) for own in sorted(best, key=lambda p: (-p.kept, p.epochs))]


def rows(candidates: Iterable[Candidate], epochs: int) -> list[dict[str, Any]]:
    """The front as plain data: id, formula, forgotten, kept and epochs of each."""
    return [
        {"id": each.id, "formula": to_text(each.loss), **point._asdict()}
        for each, point in front(candidates, epochs)
    ]
