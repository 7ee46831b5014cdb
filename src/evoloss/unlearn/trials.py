"""Trainings of several adapters: raced against each other, measured, and never spoiling another.

How many train side by side changes how long it takes, and not what comes out: each has its own
gradient, its own optimiser and its own measurement.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from evoloss.unlearn.adapters import attached
from evoloss.unlearn.bench import Bench, Phase, Sharing
from evoloss.unlearn.measurement import Failed, measure, quick
from evoloss.unlearn.metrics.scores import objective as score_of
from evoloss.unlearn.objective import Objective
from evoloss.unlearn.recipes import Measured
from evoloss.unlearn.trainer import Progress, Schedule, advance

RUNG = 0.75
"""At this share of the longest schedule, the worse half of those still in training drops out."""
SMALLEST_RACE = 4
PARTS = ("forgetting", "utility_kept")
TIMED = 3
"""Steps that are taken to see how fast trainings are."""

Tick = Callable[[float], None]
Look = Callable[..., list[Measured | Failed]]
"""`measure`, or `quick`."""


@dataclass(frozen=True)
class Tried:
    """What became of one training.

    measured: None if it broke down or was dropped, with the reason.
    score: of the objective, higher is better; for one that was raced out, how it stood then.
    curve: (step, balance) on the way. at_rung: of one that was raced out, the parts of the balance
    there. weights: of the adapter, under `peft`'s names.
    """

    measured: Measured | None
    score: float | None
    steps: int
    reason: str = ""
    raced_out: bool = False
    curve: tuple[tuple[int, float], ...] = ()
    at_rung: Mapping[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] | None = None


class Trials:
    """Some trainings on one phase of a bench, all with one objective."""

    def __init__(
        self, bench: Bench, phase: Phase, objective: Objective, schedules: Sequence[Schedule]
    ) -> None:
        self.bench = bench
        self.phase = phase
        self.objective = objective
        self.schedules = schedules

    def run(
        self, start: Progress, racing: bool = False, tick: Tick = lambda share: None
    ) -> list[Tried]:
        """Trains and measures all. start: the adapter that each begins with."""
        standing = [start] * len(self.objective)
        curves: list[list[tuple[int, float]]] = [[] for _ in standing]
        done: dict[int, Tried] = {}
        last = max(each.steps for each in self.schedules)
        for end in self._stops(last, racing):
            running = [each for each in range(len(standing)) if each not in done]
            if not running:
                break
            for each, progress in zip(running, self.advanced(running, standing, end), strict=True):
                standing[each] = progress
            over = [each for each in running if self._is_over(each, standing[each])]
            for each, tried in zip(over, self._measured(over, standing, curves), strict=True):
                done[each] = tried
            rest = [each for each in running if each not in over]
            if racing and end == self._rung(last) and rest:
                done |= self._raced(rest, standing, curves)
            tick(end / last)
        return [done[each] for each in range(len(standing))]

    def _stops(self, last: int, racing: bool) -> list[int]:
        """Where trainings pause: at the rung, and where some schedule ends."""
        rung = {self._rung(last)} if racing and len(self.objective) >= SMALLEST_RACE else set()
        return sorted(rung | {each.steps for each in self.schedules})

    def _rung(self, last: int) -> int:
        return max(1, round(last * RUNG))

    def _is_over(self, each: int, progress: Progress) -> bool:
        return progress.step >= self.schedules[each].steps or not progress.fine

    def advanced(
        self, running: Sequence[int], standing: Sequence[Progress], end: int
    ) -> list[Progress]:
        """The running ones after the step `end`; standing: of all."""
        language, lora = self.bench.language, self.bench.settings.lora

        def some(part: Sequence[int]) -> list[Progress]:
            now = [standing[each] for each in part]
            return advance(language.model, lora, self.objective, self.schedules, now, part, end)

        return self.bench.in_parts(running, some)

    def _measured(
        self, over: Sequence[int], standing: Sequence[Progress],
        curves: Sequence[list[tuple[int, float]]],
    ) -> list[Tried]:  # fmt: skip
        """The outcome of finished trainings; only those that went well are measured."""
        found: dict[int, Tried] = {}
        for each in over:
            progress = standing[each]
            if not progress.fine:
                reason = "a gradient became infinite or not a number"
                found[each] = Tried(None, None, progress.step, reason)
            elif progress.moved == 0.0:
                found[each] = Tried(None, None, progress.step, "its adapter did not move")
        able = [each for each in over if each not in found]
        for each, measured in zip(able, self._looked_at(able, standing, measure), strict=True):
            steps, curve = standing[each].step, tuple(curves[each])
            if isinstance(measured, Failed):
                found[each] = Tried(None, None, steps, measured.reason)
                continue
            score = score_of(self.bench.settings.objective, measured.values)
            curve = (*curve, (steps, measured.values.get("balance", score)))
            weights = standing[each].weights
            found[each] = Tried(measured, score, steps, curve=curve, weights=weights)
        return [found[each] for each in over]

    def _raced(
        self, rest: Sequence[int], standing: Sequence[Progress],
        curves: Sequence[list[tuple[int, float]]],
    ) -> dict[int, Tried]:  # fmt: skip
        """Those that drop out here: the worse half, and those that cannot be measured any more."""
        out: dict[int, Tried] = {}
        scores: dict[int, float] = {}
        parts: dict[int, dict[str, float]] = {}
        for each, found in zip(rest, self._looked_at(rest, standing, quick), strict=True):
            step = standing[each].step
            if isinstance(found, Failed):
                out[each] = Tried(None, None, step, found.reason)
                continue
            if "balance" in found.values:
                scores[each] = found.values["balance"]
                parts[each] = {part: found.values[part] for part in PARTS}
                curves[each].append((step, scores[each]))
        if len(scores) < SMALLEST_RACE:
            return out
        order = sorted(scores, key=lambda each: (-scores[each], each))
        for each in order[math.ceil(len(order) / 2) :]:
            step = standing[each].step
            why = f"balance {scores[each]:.3g} after {step} steps is in the worse half"
            out[each] = Tried(None, scores[each], step, why, True, tuple(curves[each]), parts[each])
        return out

    def _looked_at(
        self, chosen: Sequence[int], standing: Sequence[Progress], look: Look
    ) -> list[Measured | Failed]:
        language, settings = self.bench.language, self.bench.settings

        def some(part: Sequence[int]) -> list[Measured | Failed]:
            with attached(language.model, len(part), settings.lora) as adapters:
                adapters.load([standing[each].weights for each in part])
                return look(
                    language.model, language.encoder, self.phase.prepared, copies=len(part),
                    original=self.phase.original, retain=self.phase.retain,
                )  # fmt: skip

        return self.bench.in_parts(chosen, some)


def fastest(bench: Bench, trials: Callable[[int], Trials], choices: Collection[int]) -> Sharing:
    """Of so many adapters at a time, on one thread and on all, what takes least for each.

    trials: makes so many, of TIMED steps at least. The first step is to warm up.
    """
    every = torch.get_num_threads()
    times: dict[Sharing, float] = {}
    for together in choices:
        some = trials(together)
        for threads in {1, every}:
            with Sharing(together, threads).applied():
                standing = some.advanced(range(together), [bench.start] * together, 1)
                begun = time.perf_counter()
                some.advanced(range(together), standing, TIMED)
                times[Sharing(together, threads)] = (time.perf_counter() - begun) / together
    return min(times, key=lambda each: times[each])
