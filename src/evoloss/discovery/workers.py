"""Worker processes for a supervised search: what they are told, and how they make it a workbench.

They load the task as it was named, for its network and its metric are code. Of one data set they
get the rows of the driver, in memory that all processes share; the test split is not among them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evoloss.discovery.settings import Settings
from evoloss.discovery.trainings import Trainings
from evoloss.discovery.workbench import Workbench
from evoloss.errors import UserError
from evoloss.execution.executor import Executor, Recipe
from evoloss.execution.in_process import InProcess
from evoloss.execution.pool import Limits, Pool
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Data, Splits, Task

SHARD = 4
"""Candidates that one worker takes at a time: few enough to share a generation of 25 evenly."""
_PARTS = ("train", "validation")


def check_workers(task: Task, workers: int | None) -> None:
    """Raises: UserError for a number, or a task, that no worker can be made of."""
    if workers is None:
        return
    if workers < 1:
        raise UserError(f"{workers} workers: give at least 1, or leave them out")
    if task.source is None:
        raise UserError(
            f"task '{task.name}' lives in memory, where worker processes cannot get it: write a "
            "function that returns it and search 'module:function', or leave workers out"
        )


@contextmanager
def executor(bench: Workbench, workers: int | None, limits: Limits | None) -> Iterator[Executor]:
    """Where the work of a search on this bench is done; closed at the end."""
    shard = bench.settings.shard
    if workers is None:
        yield InProcess(Trainings(bench), shard)
        return
    files = _shared(bench.task)
    pool = Pool(_recipe(bench, files), workers, shard, limits)
    try:
        yield pool
    finally:
        pool.close()
        for descriptor in files.values():
            os.close(descriptor)


def _recipe(bench: Workbench, files: Mapping[str, int]) -> Recipe:
    # A worker proposes nothing, and need not know a method that was registered here.
    settings = replace(bench.settings, method=Settings.method)
    arguments = {
        "source": bench.task.source,
        "settings": settings.to_json(),
        "stacking": bench.stacking,
        "files": files,
    }
    maker = f"{__name__}:{trainings.__name__}"
    return Recipe(maker, arguments, tuple(files.values()))


def trainings(
    source: Mapping[str, Any], settings: dict[str, Any], stacking: dict[str, str],
    files: Mapping[str, int],
) -> Trainings:  # fmt: skip
    """In a worker: the workplace of a recipe."""
    task = load_task(**source)
    if files and isinstance(task.episodes, Splits):
        train, validation = (
            Data(*(_mapped(files[f"{part}.{axis}"]) for axis in "xy")) for part in _PARTS
        )
        nothing = Data(train.x[:0], train.y[:0])
        splits = replace(task.episodes, train=train, validation=validation, held_out_test=nothing)
        task = replace(task, episodes=splits)
    return Trainings(Workbench(task, Settings.from_json(settings), stacking))


def _shared(task: Task) -> dict[str, int]:
    """Descriptors of the data of a task with one data set, in memory that goes with its users."""
    if not isinstance(task.episodes, Splits):
        return {}
    files = {}
    for part in _PARTS:
        data = getattr(task.episodes, part)
        for axis in "xy":
            files[f"{part}.{axis}"] = _in_memory(getattr(data, axis).numpy())
    return files


def _in_memory(array: np.ndarray[Any, Any]) -> int:
    """The descriptor of a file that is only in memory and holds the array."""
    descriptor = os.memfd_create("evoloss-data")
    with io.FileIO(os.dup(descriptor), "w") as raw, io.BufferedWriter(raw) as file:
        np.save(file, np.ascontiguousarray(array))
    return descriptor


def _mapped(descriptor: int) -> torch.Tensor:
    """The array behind a descriptor, its pages shared with all who read it."""
    array = np.load(f"/proc/self/fd/{descriptor}", mmap_mode="c")
    return torch.from_numpy(np.asarray(array))
