"""Worker processes for a supervised search: what they are told, and how they make it a workbench.

They load the task as it was named, for its network and its metric are code. Of one data set they
get the rows of the driver, in memory that all processes share; the test split is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evoloss.discovery.settings import Settings
from evoloss.discovery.trainings import Trainings
from evoloss.discovery.workbench import Workbench
from evoloss.engine.device import check_promised, resolved
from evoloss.engine.stacking import stacked_densely
from evoloss.execution.executor import Executor, Recipe, shards
from evoloss.execution.journal import Journal
from evoloss.execution.pool import usual_workers
from evoloss.execution.shared_arrays import Arrays
from evoloss.execution.staff import Staff
from evoloss.execution.tensors import tensor
from evoloss.machine import cores
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Data, Splits, Task

SHARD = 4
"""Candidates that are computed together, on workers and mostly without: few enough to share a
generation of 25 evenly."""
_PARTS = ("train", "validation")


def check_workers(task: Task, staff: Staff) -> None:
    """Raises: UserError for a task that workers cannot load."""
    advice = "write a function that returns it and search 'module:function'"
    staff.check(task.source, f"task '{task.name}'", advice)


def usual_shard(task: Task, settings: Settings, staff: Staff) -> int | None:
    """How many losses are tuned or trained together where the settings do not say it.

    So that a search has one history whoever does it, networks whose numbers depend on how many are
    in a stack are in shards in this process too. Perceptrons have the same numbers in any stack; a
    GPU wants all of a generation in one, unless shards are to have a GPU each.
    """
    if torch.device(settings.device).type != "cpu":
        return SHARD if staff.gpus_per_shard else None
    alike = stacked_densely(task.network(), settings.stacking)
    return None if alike and not staff.elsewhere else SHARD


def workers_of(task: Task, settings: Settings) -> int | None:
    """How many workers do a search in shards where nobody says it; None: none but this process.

    Networks that are no perceptrons have some: their shards have one thread each, whoever does
    them, so that this process would leave all other cores idle.
    """
    if resolved(settings.device) != "cpu" or task.source is None:
        return None
    if stacked_densely(task.network(), settings.stacking):
        return None
    return usual_workers(cores(), len(shards(settings.population, settings.shard or SHARD)))


def executor(
    bench: Workbench, staff: Staff, journal: Journal | None = None
) -> AbstractContextManager[Executor]:
    """Where the work of a search on this bench is done; closed at the end.

    journal: where answers are kept, None for nowhere.
    """
    plain = journal is not None and bench.device.type == "cpu"
    return staff.at_work(
        lambda: Trainings(bench, plain), lambda: _recipe(bench, staff), bench.settings.shard,
        journal=journal,
    )  # fmt: skip


def _recipe(bench: Workbench, staff: Staff) -> Recipe:
    # A worker proposes nothing, and need not know a method that was registered here. It may have a
    # GPU where this process has none.
    device = "cuda" if staff.gpus_per_shard else bench.settings.device
    settings = replace(bench.settings, method=Settings.method, device=device)
    arguments = {
        "source": bench.task.source,
        "settings": settings.to_json(),
        "stacking": bench.stacking,
    }
    maker = f"{__name__}:{trainings.__name__}"
    return Recipe(maker, arguments, _data(bench.task))


def trainings(
    source: Mapping[str, Any], settings: dict[str, Any], stacking: dict[str, str], data: Arrays
) -> Trainings:  # fmt: skip
    """In a worker: the workplace of a recipe."""
    check_promised(settings["device"])
    task = load_task(**source)
    if data and isinstance(task.episodes, Splits):
        train, validation = (
            Data(*(tensor(data[f"{part}.{axis}"]) for axis in "xy")) for part in _PARTS
        )
        nothing = Data(train.x[:0], train.y[:0])
        splits = replace(task.episodes, train=train, validation=validation, held_out_test=nothing)
        task = replace(task, episodes=splits)
    return Trainings(Workbench(task, Settings.from_json(settings), stacking), plain=True)


def _data(task: Task) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a task with one data set, but for its test split."""
    if not isinstance(task.episodes, Splits):
        return {}
    return {
        f"{part}.{axis}": getattr(getattr(task.episodes, part), axis).numpy()
        for part in _PARTS
        for axis in "xy"
    }
