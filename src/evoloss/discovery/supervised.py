"""Losses of a network on labelled data, as the loop sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from evoloss.discovery.arena import Final, Outcome, Tick, Tuned
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.finalists import final_scores
from evoloss.discovery.methods import proposer
from evoloss.discovery.race import Racing, Score, worse_half
from evoloss.discovery.settings import Settings
from evoloss.discovery.trainings import FITNESS, Trainings, faulty, scored, tuned
from evoloss.discovery.workbench import Workbench
from evoloss.execution.executor import Executor
from evoloss.execution.in_process import InProcess
from evoloss.lang.expr import Expr
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.types import Output
from evoloss.propose.proposer import Proposer, Space
from evoloss.wording import counted


class Supervised:
    """The arena of a workbench. executor: where its losses are tuned and trained; None: here."""

    def __init__(self, bench: Workbench, executor: Executor | None = None) -> None:
        self.bench = bench
        self.executor = executor or InProcess(Trainings(bench), bench.settings.shard)

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
        return faulty(self.executor, losses)

    def tune(self, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
        return tuned(self.executor, losses, self.settings.tuning_steps, tick)

    def score(self, candidates: Sequence[Candidate], racing: Racing, tick: Tick) -> list[Outcome]:
        scores = scored(
            self.executor, [each.loss for each in candidates], self.bench.fitness_steps,
            trials=FITNESS, racing=racing, tick=tick,
        )  # fmt: skip
        trials = self.bench.fitness_seeds * self.bench.task.episodes_per_fitness
        return [self._outcome(score, trials, racing) for score in scores]

    def _outcome(self, score: Score, trials: int, racing: Racing) -> Outcome:
        metric, steps = self.bench.task.metric, score.steps * trials
        shown = (
            f"{metric.name} {metric.shown(score.error):.4g} after {counted(score.steps, 'step')}"
        )
        if not math.isfinite(score.error):
            return Outcome(Fate.FAILED, None, steps, score.fault or f"validation {shown}")
        if score.finished:
            return Outcome(Fate.SCORED, score.error, steps, rungs=score.rungs)
        why = f"validation {shown} is in {worse_half(racing)}"
        return Outcome(Fate.RACED_OUT, score.error, steps, why, rungs=score.rungs)

    def finals(self, candidates: Sequence[Candidate]) -> tuple[list[Final], int]:
        with self.threads():
            return final_scores(self.bench, candidates, self.executor)

    def shown(self, error: float) -> float:
        return self.bench.task.metric.shown(error)
