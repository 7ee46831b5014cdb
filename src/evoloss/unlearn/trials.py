"""Trainings of several adapters: raced against each other, measured, and never spoiling another.

The race is decided here, over all of them at once; what is trained together, and in which process,
is the executor's affair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from evoloss.discovery.race import Marks, Racing, worse_half
from evoloss.discovery.randomness import Purpose
from evoloss.execution.executor import Executor, Fault, Plain
from evoloss.execution.in_process import InProcess
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.metrics.scores import objective as score_of
from evoloss.unlearn.phase import Phase
from evoloss.unlearn.plain import Entry, measured_of, plain_progress, weights_of
from evoloss.unlearn.recipes import Measured
from evoloss.unlearn.sharing import Sharing
from evoloss.unlearn.trainer import Progress
from evoloss.unlearn.trainings import Group, Trainings
from evoloss.wording import counted

RUNG = 0.75
"""At this share of the longest schedule, the worse half of those still in training drops out."""
SMALLEST_RACE = 4
PARTS = ("forgetting", "utility_kept")
TIMED = 3
"""Steps that are taken to see how fast trainings are."""
ROUNDS = 3
"""So often each way is timed, in turn: other programs must not decide for the slower one."""

Tick = Callable[[float], None]
Curve = tuple[tuple[int, float], ...]


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
    curve: Curve = ()
    at_rung: Mapping[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] | None = None


class Trials:
    """Some trainings on one phase of a bench, all of losses or all of one rival method.

    purpose, seed: of their minibatches. executor: where they are done; None: in this process.
    """

    def __init__(
        self, bench: Bench, phase: Phase, entries: Sequence[Entry], purpose: Purpose, seed: int,
        executor: Executor | None = None,
    ) -> None:  # fmt: skip
        self.bench = bench
        self.phase = phase
        self.entries = entries
        self.purpose = purpose
        self.seed = seed
        self.executor = executor or InProcess(Trainings(bench), bench.settings.shard)
        self.longest = max(each.steps for each in entries)

    def run(
        self, start: Progress, racing: Racing = False, tick: Tick = lambda share: None
    ) -> list[Tried]:
        """Trains and measures all. start: the adapter that each begins with."""
        if isinstance(racing, tuple):
            return self._against(racing, start, tick)
        done: dict[int, Tried] = {}
        states: dict[int, Plain] = {}
        curves: dict[int, Curve] = {}
        begin = 0
        for end in self._stops(racing):
            running = [each for each in range(len(self.entries)) if each not in done]
            if not running:
                break
            part = (begin / self.longest, (end - begin) / self.longest)

            def within(share: float, part: tuple[float, float] = part) -> None:
                tick(part[0] + share * part[1])

            answers = self._trained(running, states, start, end, within)
            under_way = {
                at: each for at, each in answers.items()
                if not isinstance(each, Fault) and "state" in each
            }  # fmt: skip
            for each in running:
                if each not in under_way:
                    done[each] = self._ended(each, answers[each], end, curves.get(each, ()))
            curves = {
                each: _point(answer["state"]["step"], answer["values"])
                for each, answer in under_way.items()
            }
            done |= _raced_out(under_way, curves)
            states = {n: each["state"] for n, each in under_way.items() if n not in done}
            begin = end
        return [done[each] for each in range(len(self.entries))]

    def _against(self, marks: Marks, start: Progress, tick: Tick) -> list[Tried]:
        """Every shard by itself from its first step to its last: see `race.Marks`."""
        everyone = range(len(self.entries))
        mark = {"rung": self.rung, "mark": marks[0]}
        answers = self._trained(everyone, {}, start, self.longest, tick, mark)
        return [self._ended(each, answers[each], self.longest, (), marks) for each in everyone]

    @property
    def rung(self) -> int:
        """The step at which a race against marks compares, in any generation."""
        longest = self.bench.steps(self.phase, self.bench.settings.epochs)
        return max(1, round(longest * RUNG))

    def here(self) -> Group:
        """The trainings, to be carried on by hand in this process."""
        return Group.of(
            self.bench, self.phase.name, self.entries, self.purpose, self.seed, self.longest
        )

    def _stops(self, racing: bool) -> list[int]:
        """Where all trainings pause to be compared, and the end."""
        if not racing or len(self.entries) < SMALLEST_RACE:
            return [self.longest]
        return [max(1, round(self.longest * RUNG)), self.longest]

    def _trained(
        self, running: Sequence[int], states: Mapping[int, Plain], start: Progress, end: int,
        tick: Tick, mark: Mapping[str, Plain] = MappingProxyType({}),
    ) -> dict[int, Plain | Fault]:  # fmt: skip
        common = {
            "phase": self.phase.name, "purpose": int(self.purpose), "seed": self.seed,
            "longest": self.longest, "start": None if states else plain_progress(start), "end": end,
            **mark,
        }  # fmt: skip
        # Those that end together share a batch, which stays full; the longest begin first, so that
        # no worker has one to itself while the others have nothing left to do.
        order = sorted(running, key=lambda each: -self.entries[each].steps)
        items = [
            {"entry": self.entries[each].to_plain(self.bench.has_retain), "state": states.get(each)}
            for each in order
        ]
        return dict(zip(order, self.executor.run("train", items, common, tick), strict=True))

    def _ended(
        self, each: int, answer: Plain | Fault, end: int, curve: Curve, racing: Racing = True
    ) -> Tried:
        """What became of a training that was to go on to the step `end`, or to its own end."""
        if isinstance(answer, Fault):
            return Tried(None, None, min(end, self.entries[each].steps), answer.reason)
        if "at_rung" in answer:
            curve = _point(self.rung, answer["at_rung"])
        if answer.get("out"):
            return _dropped(curve[0], answer["at_rung"], racing)
        measured, step = measured_of(answer.get("measured")), answer["step"]
        if measured is None:
            return Tried(None, None, step, answer["reason"])
        score = score_of(self.bench.settings.objective, measured.values)
        curve = (*curve, (step, measured.values.get("balance", score)))
        weights = weights_of(answer["weights"])
        return Tried(measured, score, step, curve=curve, weights=weights)


def _point(step: int, values: Mapping[str, Plain]) -> Curve:
    """How a training stands that is under way."""
    return ((step, values["balance"]),) if "balance" in values else ()


def _raced_out(under_way: Mapping[int, Plain], curves: Mapping[int, Curve]) -> dict[int, Tried]:
    """The worse half of those that can be compared, if they are enough for a race."""
    points = {each: curves[each][0] for each in under_way if curves[each]}
    if len(points) < SMALLEST_RACE:
        return {}
    order = sorted(points, key=lambda each: (-points[each][1], each))
    return {
        each: _dropped(points[each], under_way[each]["values"], True)
        for each in order[math.ceil(len(order) / 2) :]
    }


def _dropped(point: tuple[int, float], values: Mapping[str, float], racing: Racing) -> Tried:
    step, balance = point
    where = worse_half(racing)
    why = f"balance {balance:.3g} after {counted(step, 'step')} is in {where}"
    parts = {part: values[part] for part in PARTS}
    return Tried(None, balance, step, why, True, (point,), parts)


def fastest(bench: Bench, trials: Callable[[int], Trials], choices: Collection[int]) -> Sharing:
    """Of so many adapters at a time, on one thread and on all, what takes least for each.

    trials: makes so many, of TIMED steps at least.
    """
    groups = {together: trials(together).here() for together in sorted(choices)}
    threads = sorted({1, torch.get_num_threads()})
    times = {Sharing(together, each): math.inf for together in groups for each in threads}
    for _ in range(ROUNDS):
        for way, before in times.items():
            times[way] = min(before, _seconds(groups[way.together], bench, way))
    return min(times, key=lambda each: times[each])


def _seconds(group: Group, bench: Bench, way: Sharing) -> float:
    """What an adapter takes for a few steps; the first step is to warm up."""
    everyone = range(way.together)
    with way.applied():
        standing = group.advanced(everyone, [bench.start] * way.together, 1)
        begun = time.perf_counter()
        group.advanced(everyone, standing, TIMED)
        return (time.perf_counter() - begun) / way.together
