"""The best scored candidates and their Pareto front, kept up as candidates come in.

Both are those of sorting all candidates by merit, whatever the order in which they come.
"""

from __future__ import annotations

from bisect import insort

from evoloss.discovery.candidate import Summary


class Leaders:
    """best: the best `count` (one at least), best first; front: no loss is simpler and better."""

    def __init__(self, count: int) -> None:
        self.count = max(count, 1)
        self.best: list[Summary] = []
        self.front: list[Summary] = []

    def add(self, scored: Summary) -> None:
        """Takes in a scored candidate."""
        if len(self.best) < self.count or scored.merit < self.best[-1].merit:
            insort(self.best, scored, key=lambda each: each.merit)
            del self.best[self.count :]
        if not any(_beats(each, scored) for each in self.front):
            self.front = [each for each in self.front if not _beats(scored, each)]
            insort(self.front, scored, key=lambda each: each.complexity)


def _beats(one: Summary, other: Summary) -> bool:
    """Whether the other has no place on a front with this one: of equals the earlier stays."""
    (error, complexity, id), (error2, complexity2, id2) = one.merit, other.merit
    return error <= error2 and (complexity, error, id) < (complexity2, error2, id2)
