"""Losses of a network on labelled data, as the loop sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from evoloss.discovery.arena import Final, Outcome, Tick, Tuned
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.finalists import final_scores
from evoloss.discovery.fitness import Score, fitness
from evoloss.discovery.methods import proposer
from evoloss.discovery.rejection import faults
from evoloss.discovery.settings import Settings
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Workbench
from evoloss.lang.expr import Expr
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.types import Output
from evoloss.propose.proposer import Proposer, Space


class Supervised:
    """The arena of a workbench."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    @property
    def settings(self) -> Settings:
        return self.bench.settings

    @property
    def output(self) -> Output:
        return self.bench.task.output

    def threads(self) -> AbstractContextManager[None]:
        return self.bench.threads()

    def space(self, common: Mapping[str, Any]) -> Space:
        return Space(usual=self.bench.usual, output=self.output, **common)

    def proposer(self, space: Space) -> Proposer:
        return proposer(space, self.bench)

    def fingerprint(self, loss: Expr) -> str | None:
        return gradient_fingerprint(loss, self.output)

    def faults(self, losses: Sequence[Expr]) -> list[str | None]:
        return faults(self.bench, losses)

    def tune(self, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
        return [Tuned(phi, self.settings.tuning_steps) for phi in tune(self.bench, losses, tick)]

    def score(self, candidates: Sequence[Candidate], tick: Tick) -> list[Outcome]:
        trials = self.bench.fitness_trials
        losses = [each.loss for each in candidates]
        scores = fitness(self.bench, losses, trials, self.settings.racing, tick)
        return [self._outcome(score, len(trials)) for score in scores]

    def _outcome(self, score: Score, trials: int) -> Outcome:
        metric, steps = self.bench.task.metric, score.steps * trials
        shown = f"{metric.name} {metric.shown(score.error):.4g} after {score.steps} steps"
        if not math.isfinite(score.error):
            return Outcome(Fate.FAILED, None, steps, f"validation {shown}")
        if score.finished:
            return Outcome(Fate.SCORED, score.error, steps)
        why = f"validation {shown} is in the worse half"
        return Outcome(Fate.RACED_OUT, score.error, steps, why)

    def finals(self, candidates: Sequence[Candidate]) -> tuple[list[Final], int]:
        with self.threads():
            return final_scores(self.bench, candidates)

    def shown(self, error: float) -> float:
        return self.bench.task.metric.shown(error)
