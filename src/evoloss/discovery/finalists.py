"""The last stage of a search: the best losses again, on fresh seeds, each at its own best scale.

The lowest of a thousand scores is low by luck too; the mean over initialisations that selection
has not seen is not. And a multiple of a loss is nothing but another learning rate, which neither
crossover nor a few hundred small steps on the weights find: it is searched for here, by doubling
and halving, as a practitioner would tune the learning rate of the usual loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evoloss.discovery.candidate import Candidate
from evoloss.discovery.fitness import fitness
from evoloss.discovery.workbench import Trial, Workbench
from evoloss.lang.expr import complexity, scaled

FINAL_SEEDS = 5
"""On how many other initialisations the finalists are scored."""
LARGEST_SCALE = 64.0


@dataclass(frozen=True)
class Final:
    """A finalist, the multiple of it that does best, and its mean error with that."""

    candidate: Candidate
    error: float
    scale: float = 1.0

    @property
    def complexity(self) -> int:
        """Nodes of the candidate's structure."""
        return complexity(self.candidate.expression)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the store."""
        return {"id": self.candidate.id, "error": self.error, "scale": self.scale}


def final_scores(bench: Workbench, finalists: Sequence[Candidate]) -> tuple[list[Final], int]:
    """The finalists with their mean errors, and the gradient steps that it took.

    Those whose mean is not finite are left out.
    """
    trials = bench.final_trials(FINAL_SEEDS)
    race = _Race(bench, trials)
    best = race.scored([Final(each, math.inf) for each in finalists])
    if bench.settings.rescale:
        best = _rescaled(race, best)
    return [each for each in best if math.isfinite(each.error)], race.steps


@dataclass
class _Race:
    """Trains finalists on the same trials and counts the steps."""

    bench: Workbench
    trials: Sequence[Trial]
    steps: int = 0

    def scored(self, finalists: Sequence[Final]) -> list[Final]:
        """The same with their errors at their scales."""
        losses = [scaled(each.candidate.loss, each.scale) for each in finalists]
        scores = fitness(self.bench, losses, self.trials, racing=False)
        self.steps += sum(score.steps * len(self.trials) for score in scores)
        return [
            replace(final, error=score.error if math.isfinite(score.error) else math.inf)
            for final, score in zip(finalists, scores, strict=True)
        ]


def _rescaled(race: _Race, best: list[Final]) -> list[Final]:
    """Doubles or halves each scale for as long as that lowers the error."""
    doubled = race.scored([replace(each, scale=2.0 * each.scale) for each in best])
    halved = race.scored([replace(each, scale=0.5 * each.scale) for each in best])
    found, climbing = list(best), {}
    for index, (up, down) in enumerate(zip(doubled, halved, strict=True)):
        better = up if up.error < down.error else down
        if _worth_following(better, best[index]):
            found[index] = better
            climbing[index] = better.scale
    while climbing:
        tried = race.scored(
            [replace(found[index], scale=found[index].scale * f) for index, f in climbing.items()]
        )
        still = {}
        for (index, factor), final in zip(climbing.items(), tried, strict=True):
            if _worth_following(final, found[index]):
                found[index] = final
                if 1.0 / LARGEST_SCALE < final.scale < LARGEST_SCALE:
                    still[index] = factor
        climbing = still
    return found


def _worth_following(tried: Final, before: Final) -> bool:
    """Whether the new scale is better, or both diverge and a smaller one may not."""
    return tried.error < before.error or (math.isinf(before.error) and tried.scale < before.scale)
