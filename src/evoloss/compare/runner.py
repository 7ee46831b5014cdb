"""Runs what is missing of a comparison, resumes what was broken off, and meta-tests it all."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evoloss.compare.plan import Cell, Plan
from evoloss.discovery.evaluate import Evaluation, Row, evaluate
from evoloss.discovery.result import FoundLoss, found_losses
from evoloss.discovery.search import resume, search
from evoloss.discovery.settings import Settings
from evoloss.engine.device import resolved
from evoloss.errors import NothingTrained, UserError
from evoloss.lang.expr import Expr
from evoloss.lang.parse import parse
from evoloss.runs import evaluation_record
from evoloss.store import Store
from evoloss.store.database import FILE
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task
from evoloss.wording import counted

Say = Callable[[str], None]
Record = dict[str, Any]


def run(plan: Plan, tasks: Sequence[tuple[str, Task]], say: Say = lambda line: None) -> None:
    """Completes the comparison; call it again after an interruption and it goes on.

    tasks: (folder, task) for each of the plan's. say: told what is being done, line by line.
    Raises UserError where a directory holds a run with other settings or of another task.
    """
    for (folder, task), spec in zip(tasks, plan.tasks, strict=True):
        cells = list(plan.cells(spec, folder))
        jobs = min(plan.jobs, len(cells))
        if jobs == 1:
            for cell in cells:
                _complete(cell, task, say)
        else:
            _complete_side_by_side(jobs, cells, task, say)
        for seed in range(plan.seeds):
            _meta_test(plan, task, [cell for cell in cells if cell.seed == seed], say)


def _complete_side_by_side(jobs: int, cells: Sequence[Cell], task: Task, say: Say) -> None:
    """The same in several processes, each on as many threads as are left to it.

    What runs beside a search changes nothing about it; how many threads it has does, in the last
    bits, where a network is so large that torch divides its products.
    """
    if task.source is None:
        raise UserError(f"task '{task.name}' lives in memory: compare it with one job")
    fresh = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, fresh, initializer=_load, initargs=(task.source, threads))
    try:
        for lines in pool.map(_complete_here, cells):
            for line in lines:
                say(line)
    finally:
        pool.shutdown(cancel_futures=True)  # what has not begun, after an error or Ctrl-C


_loaded: list[Task] = []
"""The task of a worker process, loaded once."""


def _load(source: dict[str, Any], threads: int) -> None:
    torch.set_num_threads(threads)
    _loaded.append(load_task(**source))


def _complete_here(cell: Cell) -> list[str]:
    lines: list[str] = []
    _complete(cell, _loaded[0], lines.append)
    return lines


def _complete(cell: Cell, task: Task, say: Say) -> None:
    """The search of a cell: nothing if it is done, the rest of it, or all of it."""
    name = f"{task.name}: {cell.method}, seed {cell.seed}"
    try:
        if not (cell.directory / FILE).exists():
            say(name)
            settings = cell.settings.to_json()
            method_preset = settings.pop("preset")
            search(task, out=cell.directory, preset=method_preset, **settings)
            return
        with Store.open(cell.directory, write=False) as store:
            _check(store, cell, task)
            done = store.outcome is not None
        if not done:
            say(f"{name}, from where it was broken off")
            resume(cell.directory, task=task)
    except NothingTrained as error:
        say(f"{name}: {error}")  # which counts as a failure in the table


def _check(store: Store, cell: Cell, task: Task) -> None:
    wanted = {"task": task.name, "network": task.network_name}
    found = {name: store.about[name] for name in wanted}
    settings = replace(cell.settings, device=resolved(cell.settings.device))
    if found != wanted or Settings.from_json(store.settings) != settings:
        raise UserError(
            f"run '{cell.directory}' has another task, network, budget or settings: "
            "choose another --out"
        )


def _meta_test(plan: Plan, task: Task, cells: Sequence[Cell], say: Say) -> None:
    """Trains networks under all losses of one seed side by side, once for each factor."""
    seed = cells[0].seed
    for factor in plan.factors:
        steps = factor * (cells[0].settings.fitness_steps or task.training.steps)
        own = mark(plan, task, seed, steps)
        missing = [each for each in cells if _untested(each.directory, own)]
        if not missing:
            continue
        say(f"{task.name}: test, seed {seed}, {counted(steps, 'step')}")
        losses = {cell.method: _best(cell.directory) for cell in missing}
        usual = parse(task.usual_loss)
        plain = {name: each.expression for name, each in losses.items() if each.momentum is None}
        options: dict[str, Any] = {"seeds": plan.trainings, "steps": steps, "seed": seed,
                   "device": cells[0].settings.device}  # fmt: skip
        tested = evaluate(task, {**plain, "usual": usual}, **options)
        rows = {row.label: row for row in tested.rows}
        for name, each in losses.items():
            if each.momentum is not None:
                rows[name] = _with_momentum(task, name, each, options)
        for cell in missing:
            _keep(cell, replace(tested, rows=(rows[cell.method], rows["usual"])), own)


def _with_momentum(task: Task, name: str, loss: FoundLoss, options: dict[str, Any]) -> Row:
    """The row of a loss whose base training has a momentum of its own."""
    momentum = loss.momentum or 0.0
    training = replace(task.training, momentum=momentum, nesterov=bool(momentum))
    losses: dict[str, Expr] = {name: loss.expression}
    (row,) = evaluate(replace(task, training=training), losses, **options).rows
    return row


def mark(plan: Plan, task: Task, seed: int, steps: int) -> Record:
    """What a record of a meta-test is known by: users keep evaluations of their own beside it."""
    return {"task": task.name, "seed": seed, "trainings": plan.trainings, "steps": steps}


def marked(store: Store, own: Record) -> Record | None:
    """The record with a mark, if there is one."""
    return next((each for each in store.evaluations() if each.get("comparison") == own), None)


def _untested(directory: Path, own: Record) -> bool:
    """Whether a finished search has not had the meta-test with this mark."""
    with Store.open(directory, write=False) as store:
        return store.outcome is not None and marked(store, own) is None


def _best(directory: Path) -> FoundLoss:
    with Store.open(directory, write=False) as store:
        outcome = store.outcome
        if outcome is None:
            raise UserError(f"run '{directory}' is not finished: run the comparison again")
        return found_losses(outcome, store.history(), store.about["output"])[0]


def _keep(cell: Cell, evaluation: Evaluation, own: Record) -> None:
    with Store.open(cell.directory, write=True) as store:
        store.add_evaluation({**evaluation_record(evaluation), "comparison": own})
