"""The costly work of a supervised search as calls on plain data: tuning weights, and training.

A loss is its JSON text, the state of a training is arrays of numbers. What a call answers depends
on its arguments and the workbench alone, so any process that has the same workbench may do it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from evoloss.discovery.arena import Tuned
from evoloss.discovery.fitness import advanced, fitness
from evoloss.discovery.race import Marks, Racing, Score, race
from evoloss.discovery.rejection import faults
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Trial, Workbench
from evoloss.engine.memory import gpu_is_short, in_parts
from evoloss.engine.training import Trained
from evoloss.execution.executor import Executor, Fault, Plain, Tick
from evoloss.lang.export.json_form import from_json, to_json
from evoloss.lang.expr import Expr

FITNESS, FINALISTS = "fitness", "finalists"


class Trainings:
    """The `Workplace` of a workbench.

    plain: whether answers are plain data, for other processes and for files; otherwise the state of
    a training is a tensor on the device that it goes on with. together: how many losses fit into
    the device's memory; None where that is not known to be less than what is asked for.
    """

    def __init__(self, bench: Workbench, plain: bool = False) -> None:
        self.bench = bench
        self.plain = plain
        self.together: int | None = None

    def do(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain]:
        """`test`: cheaply. `tune`: weights. `train`: trainings from one step to another. `race`:
        whole trainings, against marks.

        alone, in common: whether the call has one item. A matrix product of one perceptron is
        rounded otherwise than the same among several, so where a shard has one of many, that one is
        computed beside a copy of itself.
        """
        common = dict(common)
        paired = not common.pop("alone") and self.bench.dense

        def work(part: Sequence[Plain]) -> list[Plain]:
            if paired and len(part) == 1:
                return self._work(call, [*part, *part], common, tick)[:1]
            return self._work(call, part, common, tick)

        with self.bench.threads():
            together = min(self.together or len(items), len(items))
            return in_parts(items, together, work, gpu_is_short, self._work_on_fewer)

    def _work(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain]:
        losses = [from_json(item["loss"]) for item in items]
        if call == "test":
            return list(faults(self.bench, losses))
        if call == "tune":
            return [list(phi) for phi in tune(self.bench, losses, tick)]
        if call == "race":
            return self._race(losses, tick, **common)
        return self._train(losses, items, **common)

    def _work_on_fewer(self, count: int) -> None:
        """From here on, for what did not fit once will not fit again."""
        self.together = count
        if self.bench.graphs is not None:
            self.bench.graphs.clear()
            torch.cuda.empty_cache()

    def _train(
        self, losses: Sequence[Expr], items: Sequence[Plain], trials: str, momentum: float | None,
        begin: int, end: int, last: bool,
    ) -> list[Plain]:  # fmt: skip
        """One answer a loss: its errors, one a trial, and unless it is the last part its state."""
        bench = self.bench if momentum is None else self.bench.with_momentum(momentum)
        chosen = self._fitness if trials == FITNESS else self._finalists
        states = [_gathered(items, n, trial, begin) for n, trial in enumerate(chosen)]
        after, errors = advanced(bench, losses, chosen, states, begin, end)
        if last:
            return [{"errors": list(each)} for each in errors]
        rows = [_plain(each) if self.plain else (each.theta, each.velocity) for each in after]
        return [
            {
                "errors": list(each),
                "state": [[theta[row], velocity[row]] for theta, velocity in rows],
            }
            for row, each in enumerate(errors)
        ]

    def _race(self, losses: Sequence[Expr], tick: Tick, marks: Sequence[float]) -> list[Plain]:
        """The fields of each loss's score.

        Who of a generation is left alone depends on the shard, so here all perceptrons are paired.
        """
        found = fitness(self.bench, losses, self._fitness, tuple(marks), tick, self.bench.dense)
        return [vars(each) for each in found]

    @property
    def _fitness(self) -> Sequence[Trial]:
        return self.bench.fitness_trials

    @cached_property
    def _finalists(self) -> Sequence[Trial]:
        return self.bench.final_trials(self.bench.settings.final_seeds)


def _gathered(items: Sequence[Plain], number: int, trial: Trial, begin: int) -> Trained:
    """Where the trainings of a trial stand: at its initial weights, or as the items say."""
    if begin == 0:
        return Trained.start(trial.initial, len(items))
    rows = [item["state"][number] for item in items]
    theta, velocity = (_stacked(rows, which).to(trial.initial.device) for which in (0, 1))
    return Trained(theta, velocity, begin)


def _stacked(rows: Sequence[Any], which: int) -> Tensor:
    return torch.stack([torch.as_tensor(row[which]) for row in rows])


def _plain(state: Trained) -> tuple[Plain, Plain]:
    return state.theta.cpu().numpy(), state.velocity.cpu().numpy()


def faulty(executor: Executor, losses: Sequence[Expr]) -> list[str | None]:
    """For each loss (weights bound in) why it is rejected, or None."""
    items = [{"loss": to_json(loss)} for loss in losses]
    found = executor.run("test", items, _common(items), lambda share: None)
    return [each.reason if isinstance(each, Fault) else each for each in found]


def tuned(executor: Executor, losses: Sequence[Expr], steps: int, tick: Tick) -> list[Tuned]:
    """The weights of each loss after local search of so many training steps."""
    items = [{"loss": to_json(loss)} for loss in losses]
    return [
        Tuned((math.nan,), steps, found.reason)
        if isinstance(found, Fault)
        else Tuned(tuple(found), steps)
        for found in executor.run("tune", items, _common(items), tick)
    ]


def _common(items: Sequence[Plain], **more: Plain) -> dict[str, Plain]:
    """What holds for all items of a call."""
    return {**more, "alone": len(items) == 1}


def scored(
    executor: Executor, losses: Sequence[Expr], steps: int, *, trials: str,
    racing: Racing = False, momentum: float | None = None, tick: Tick = lambda share: None,
) -> list[Score]:  # fmt: skip
    """The score of each loss (weights bound in) after a race of so many steps.

    trials: FITNESS or FINALISTS. momentum: of the base training, None for the task's own.
    """
    if isinstance(racing, tuple):
        return _raced(executor, losses, steps, racing, tick)
    common = {"trials": trials, "momentum": momentum}
    runner = _Executed(executor, losses, steps, common)
    return race(runner, len(losses), steps, racing, tick)


def _raced(
    executor: Executor, losses: Sequence[Expr], steps: int, marks: Marks, tick: Tick
) -> list[Score]:
    """Against marks: a shard needs nobody else from its first step to its last."""
    items = [{"loss": to_json(loss)} for loss in losses]
    found = executor.run("race", items, _common(items, marks=list(marks)), tick)
    return [_score(each, steps) for each in found]


def _score(found: Plain | Fault, steps: int) -> Score:
    if isinstance(found, Fault):
        return Score((math.nan,), steps, False, found.reason)
    return Score(**{**found, "errors": tuple(found["errors"]), "rungs": tuple(found["rungs"])})


class _Executed:
    """Runs trainings on an executor; between two calls their states are kept here."""

    def __init__(
        self, executor: Executor, losses: Sequence[Expr], steps: int, common: Mapping[str, Plain]
    ) -> None:
        self.executor = executor
        self.items: list[dict[str, Plain]] = [{"loss": to_json(loss)} for loss in losses]
        self.steps = steps
        self.common = common

    def advance(
        self, running: Sequence[int], begin: int, end: int
    ) -> list[tuple[float, ...] | Fault]:
        items = [self.items[each] for each in running]
        last = end == self.steps
        common = _common(items, **self.common, begin=begin, end=end, last=last)
        for number in set(range(len(self.items))) - set(running):
            self.items[number].pop("state", None)  # it is out of the race: free its memory
        found = self.executor.run("train", items, common, lambda share: None)
        errors: list[tuple[float, ...] | Fault] = []
        for item, each in zip(items, found, strict=True):
            if isinstance(each, Fault):
                errors.append(each)
                continue
            item["state"] = each.get("state")
            errors.append(tuple(each["errors"]))
        return errors
