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
from statistics import fmean, stdev

from evoloss.discovery.arena import Final
from evoloss.discovery.candidate import Candidate
from evoloss.discovery.trainings import FINALISTS, Trainings, scored
from evoloss.discovery.workbench import Workbench
from evoloss.execution.executor import Executor
from evoloss.execution.in_process import InProcess
from evoloss.lang.expr import scaled

LARGEST_SCALE = 64.0
MOMENTA = (0.0, 0.5, 0.9)
"""That the usual loss is tried with where its training is tuned as well."""


def final_scores(
    bench: Workbench, finalists: Sequence[Candidate], executor: Executor | None = None
) -> tuple[list[Final], int]:
    """The finalists with their mean errors, and the gradient steps that it took.

    Those whose mean is not finite are left out. executor: where they are trained; None: here.
    """
    executor = executor or InProcess(Trainings(bench), bench.settings.shard)
    momenta = MOMENTA if bench.settings.tune_momentum else (None,)
    best, steps = [Final(each, math.inf) for each in finalists], 0
    for momentum in momenta:
        race = _Race(bench, executor, momentum)
        found = race.scored([Final(each, math.inf, momentum=momentum) for each in finalists])
        if bench.settings.rescale:
            found = _rescaled(race, found)
        best = [min(pair, key=lambda each: each.error) for pair in zip(best, found, strict=True)]
        steps += race.steps
    return [each for each in best if math.isfinite(each.error)], steps


@dataclass
class _Race:
    """Trains finalists on the same trials and counts the steps."""

    bench: Workbench
    executor: Executor
    momentum: float | None
    steps: int = 0

    def scored(self, finalists: Sequence[Final]) -> list[Final]:
        """The same with their errors at their scales."""
        losses = [scaled(each.candidate.loss, each.scale) for each in finalists]
        scores = scored(
            self.executor, losses, self.bench.fitness_steps, trials=FINALISTS,
            momentum=self.momentum,
        )  # fmt: skip
        trials = self.bench.settings.final_seeds * self.bench.task.episodes_per_fitness
        self.steps += sum(score.steps * trials for score in scores)
        return [
            replace(
                final,
                error=score.error if math.isfinite(score.error) else math.inf,
                errors=score.errors,
            )
            for final, score in zip(finalists, scores, strict=True)
        ]


def _rescaled(race: _Race, best: list[Final]) -> list[Final]:
    """Doubles or halves each scale while that lowers the error; kept if it is surely lower."""
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
    return [new if beats(new, old) else old for new, old in zip(found, best, strict=True)]


def _worth_following(tried: Final, before: Final) -> bool:
    """Whether the new scale is better, or both diverge and a smaller one may not."""
    return tried.error < before.error or (math.isinf(before.error) and tried.scale < before.scale)


def beats(one: Final, other: Final) -> bool:
    """Whether one's error is lower by more than a standard error; less is noise of selection.

    Either that of the paired difference, or that of one's own mean (the rule of Breiman et al.
    1984). The first alone would never be sure of a loss that diverges on one trial: the mean of
    such differences is no larger than its standard error.
    """
    if not math.isfinite(one.error) or one.error >= other.error:
        return False
    if not math.isfinite(other.error) or len(one.errors) < 2:
        return True
    gains = [b - a for a, b in zip(one.errors, other.errors, strict=True)]
    gain = fmean(gains)
    return gain > min(_standard_error(gains), _standard_error(one.errors))


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values))


def simplest_of_the_best(finals: Sequence[Final]) -> Final:
    """Of those that the lowest error does not surely beat, the simplest."""
    best = min(finals, key=_merit)
    level = [each for each in finals if not beats(best, each)]
    return min(level, key=lambda each: (each.complexity, *_merit(each)))


def _merit(final: Final) -> tuple[float, int, int]:
    return final.error, final.complexity, final.candidate.id
