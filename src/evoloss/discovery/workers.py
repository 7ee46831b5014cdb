"""Worker processes for a supervised search: what they are told, and how they make it a workbench.

They load the task as it was named, for its network and its metric are code. Of one data set they
get the rows of the driver, in memory that all processes share; the test split is not among them.
"""

from __future__ import annotations

import warnings
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
from evoloss.execution.crew import Crew, Limits
from evoloss.execution.executor import Executor, Recipe
from evoloss.execution.in_process import InProcess
from evoloss.execution.pool import Pool
from evoloss.execution.shared_arrays import Arrays
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Data, Splits, Task

SHARD = 4
"""Candidates that one worker takes at a time: few enough to share a generation of 25 evenly."""
_PARTS = ("train", "validation")


def check_workers(task: Task, workers: int | None, ray: str | None = None) -> None:
    """Raises: UserError for a number, or a task, that no worker can be made of."""
    if workers is None and ray is None:
        return
    if workers is not None and ray is not None:
        raise UserError("workers and ray exclude each other: Ray decides on its processes itself")
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers: give at least 1, or leave them out")
    if task.source is None:
        raise UserError(
            f"task '{task.name}' lives in memory, where worker processes cannot get it: write a "
            "function that returns it and search 'module:function', or leave workers out"
        )


@contextmanager
def executor(
    bench: Workbench, workers: int | None, limits: Limits | None, ray: str | None = None
) -> Iterator[Executor]:
    """Where the work of a search on this bench is done; closed at the end."""
    shard = bench.settings.shard
    if workers is None and ray is None:
        yield InProcess(Trainings(bench), shard)
        return
    crew: Crew
    if ray is not None:
        from evoloss.execution.ray_cluster import RayCluster

        crew = RayCluster(_recipe(bench), ray, shard, limits)
    else:
        crew = Pool(_recipe(bench), workers or 1, shard, limits)
    try:
        yield crew
    finally:
        crew.close()


def _recipe(bench: Workbench) -> Recipe:
    # A worker proposes nothing, and need not know a method that was registered here.
    settings = replace(bench.settings, method=Settings.method)
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
    task = load_task(**source)
    if data and isinstance(task.episodes, Splits):
        train, validation = (
            Data(*(_tensor(data[f"{part}.{axis}"]) for axis in "xy")) for part in _PARTS
        )
        nothing = Data(train.x[:0], train.y[:0])
        splits = replace(task.episodes, train=train, validation=validation, held_out_test=nothing)
        task = replace(task, episodes=splits)
    return Trainings(Workbench(task, Settings.from_json(settings), stacking), sent=True)


def _data(task: Task) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a task with one data set, but for its test split."""
    if not isinstance(task.episodes, Splits):
        return {}
    return {
        f"{part}.{axis}": getattr(getattr(task.episodes, part), axis).numpy()
        for part in _PARTS
        for axis in "xy"
    }


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Without a copy, though torch warns that some arrays must not be written to: nobody does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)
