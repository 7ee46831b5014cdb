"""The costly work of an unlearning search as calls on plain data: tuning constants, and training.

How many adapters train side by side changes how long it takes, and not what comes out: each has
its own gradient, its own optimiser and its own measurement. What a call answers depends on its
arguments and the bench alone, so any process that has the same bench may do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evoloss.discovery.randomness import Purpose, stream
from evoloss.execution.executor import Plain, Tick
from evoloss.lang.export.json_form import from_json
from evoloss.unlearn.adapters import attached
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.measurement import Failed, measure, quick
from evoloss.unlearn.objective import LossObjective, Objective
from evoloss.unlearn.phase import Phase
from evoloss.unlearn.plain import (
    Entry,
    plain_measured,
    plain_progress,
    plain_weights,
    progress_of,
)
from evoloss.unlearn.recipes import Measured
from evoloss.unlearn.rivals import RIVALS, Context
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.trainer import Progress, advance

Look = Callable[..., list[Measured | Failed]]
"""`measure`, or `quick`."""


class Trainings:
    """The `Workplace` of a bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def do(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain]:
        """`tune`: constants. `train`: from one stop of a race to the next, with a look at the end.

        Raises: UserError where memory does not do for one row of a single adapter.
        """
        with self.bench.sharing.applied():
            if call == "tune":
                return self._tune(items, tick)
            return self._train(items, tick, **common)

    def _tune(self, items: Sequence[Plain], tick: Tick) -> list[Plain]:
        from evoloss.unlearn.tuning import tune

        losses = [from_json(item["loss"]) for item in items]
        return [
            {"phi": list(each.phi), "steps": each.steps, "reason": each.reason}
            for each in tune(self.bench, losses, tick)
        ]

    def _train(
        self, items: Sequence[Plain], tick: Tick, phase: str, purpose: int, seed: int,
        longest: int, start: Plain, end: int, rung: int | None = None, mark: float = math.inf,
    ) -> list[Plain]:  # fmt: skip
        """Each trained to the step `end`, or to the end of its own schedule and then measured.

        start: where those stand that do not say it themselves. rung: a step at which those drop out
        whose balance, as an error, is above the mark.
        """
        entries = [Entry.of(item["entry"]) for item in items]
        group = Group.of(self.bench, phase, entries, Purpose(purpose), seed, longest)
        standing = [progress_of(item.get("state") or start) for item in items]
        begin = min(each.step for each in standing)
        answers: dict[int, Plain] = {}
        at_rung: dict[int, Plain] = {}
        stops = {min(end, each.steps) for each in entries}
        for stop in sorted(stops if rung is None else {*stops, rung}):
            running = [each for each in range(len(items)) if each not in answers]
            if not running:
                break
            after = group.advanced(running, standing, stop)
            for each, progress in zip(running, after, strict=True):
                standing[each] = progress
            over = [each for each in running if group.is_over(each, standing[each])]
            answers |= group.ended(over, standing)
            if stop == rung:
                under_way = [each for each in running if each not in over]
                found, out = group.compared(under_way, standing, mark)
                at_rung |= found
                answers |= out
            tick((stop - begin) / (end - begin))
        rest = [each for each in range(len(items)) if each not in answers]
        answers |= group.under_way(rest, standing)
        return [
            {**answers[each], "at_rung": at_rung[each]} if each in at_rung else answers[each]
            for each in range(len(items))
        ]


class Group:
    """Trainings that are carried on together, on one phase of a bench."""

    def __init__(
        self, bench: Bench, phase: Phase, objective: Objective, schedules: Sequence[Schedule]
    ) -> None:
        self.bench = bench
        self.phase = phase
        self.objective = objective
        self.schedules = schedules

    @classmethod
    def of(
        cls, bench: Bench, phase: str, entries: Sequence[Entry], purpose: Purpose, seed: int,
        longest: int,
    ) -> Group:  # fmt: skip
        """All entries are losses, or variants of one rival method.

        purpose, seed: of the minibatches, which are drawn for the longest of all trainings.
        """
        chosen = bench.phase(phase)

        def made(_: Sequence[int]) -> list[Objective]:
            # Drawn from the beginning each time that memory does not do for what a rival asks.
            rng = stream(bench.settings.seed, purpose, seed)
            return [_objective(bench, chosen, entries, longest, rng)]

        [objective] = bench.in_parts([0], made)
        schedules = [bench.settings.schedule_of(each.steps, each.lr) for each in entries]
        return cls(bench, chosen, objective, schedules)

    def is_over(self, each: int, progress: Progress) -> bool:
        """Whether a training has come to its end, or broken down."""
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

    def ended(self, over: Sequence[int], standing: Sequence[Progress]) -> dict[int, Plain]:
        """What became of finished trainings; only those that went well are measured."""
        found: dict[int, Plain] = {}
        for each in over:
            progress = standing[each]
            if not progress.fine:
                reason = "a gradient became infinite or not a number"
                found[each] = {"step": progress.step, "reason": reason}
            elif progress.moved == 0.0:
                found[each] = {"step": progress.step, "reason": "its adapter did not move"}
        able = [each for each in over if each not in found]
        for each, measured in zip(able, self._looked_at(able, standing, measure), strict=True):
            progress = standing[each]
            found[each] = {"step": progress.step}
            if isinstance(measured, Failed):
                found[each]["reason"] = measured.reason
            else:
                found[each]["measured"] = plain_measured(measured)
                found[each]["weights"] = plain_weights(progress.weights)
        return found

    def compared(
        self, rest: Sequence[int], standing: Sequence[Progress], mark: float
    ) -> tuple[dict[int, Plain], dict[int, Plain]]:
        """How unfinished ones do at a rung, and the answers of those that are over with it."""
        values: dict[int, Plain] = {}
        out: dict[int, Plain] = {}
        for each, looked in zip(rest, self._looked_at(rest, standing, quick), strict=True):
            step = standing[each].step
            if isinstance(looked, Failed):
                out[each] = {"step": step, "reason": looked.reason}
                continue
            values[each] = looked.values
            if -looked.values.get("balance", math.inf) > mark:
                out[each] = {"step": step, "out": True}
        return values, out

    def under_way(self, rest: Sequence[int], standing: Sequence[Progress]) -> dict[int, Plain]:
        """Where unfinished ones stand, and how they do; one that cannot be measured is over."""
        found: dict[int, Plain] = {}
        for each, looked in zip(rest, self._looked_at(rest, standing, quick), strict=True):
            progress = standing[each]
            if isinstance(looked, Failed):
                found[each] = {"step": progress.step, "reason": looked.reason}
                continue
            found[each] = {"state": plain_progress(progress), "values": looked.values}
        return found

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
                    batch=self.bench.rows_measured,
                )  # fmt: skip

        return self.bench.in_parts(chosen, some, "measured")


def _objective(
    bench: Bench, phase: Phase, entries: Sequence[Entry], steps: int, rng: np.random.Generator
) -> Objective:
    batch = bench.settings.batch
    losses = [each.loss for each in entries if each.loss is not None]
    if losses:
        return LossObjective(losses, phase.sets, batch, steps, rng)
    context = Context(
        bench.language.model, bench.language.encoder, phase.sets, phase.examples, bench.context,
        batch, steps, rng,
    )  # fmt: skip
    return RIVALS[entries[0].rival].make([each.constants for each in entries], context)
