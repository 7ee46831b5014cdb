"""Searching a loss for a network on labelled data: the task, the settings, the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evoloss.discovery.budgets import raised
from evoloss.discovery.loop import Run
from evoloss.discovery.precision import check_precision
from evoloss.discovery.progress import Observer
from evoloss.discovery.result import Result
from evoloss.discovery.settings import Settings, preset
from evoloss.discovery.supervised import Supervised
from evoloss.discovery.workbench import Workbench
from evoloss.discovery.workers import check_workers, executor, usual_shard
from evoloss.engine.device import resolved
from evoloss.errors import UserError
from evoloss.execution.crew import Limits
from evoloss.execution.journal import FOLDER, Journal
from evoloss.execution.staff import Staff
from evoloss.store import Store
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task, check_network


def search(
    task: Task | str,
    *,
    out: Path | str | None = None,
    observer: Observer | None = None,
    preset: str = "fast",
    workers: int | None = None,
    ray: str | None = None,
    limits: Limits | None = None,
    gpus_per_shard: float = 0.0,
    report: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Result:
    """Discovers a loss for a task.

    task: a Task, or what `load_task` takes. out: directory of a new run; None keeps nothing.
    observer: told of the progress. workers: processes that tune and train; ray: the address of a
    Ray cluster that does, 'local' starts one on this machine; neither does it here. limits: of
    either. gpus_per_shard: what Ray sets aside for each shard of losses, which then is worked on
    there, whatever the device of this process. report: how what is found is to be compared in the
    end, kept with the run for who resumes it. preset and settings: see `Settings`, such as seed=0,
    population=25, generations=50.
    Raises: UserError for a task, setting or directory that will not do, or if no candidate
    could be scored.
    """
    staff = Staff(workers, ray, limits, gpus_per_shard)
    if gpus_per_shard:
        settings = {"device": "auto", **settings}  # of this process, which may have none
    chosen = _settings(preset, settings)
    chosen = replace(chosen, device=resolved(chosen.device))
    if isinstance(task, str):
        task = load_task(task)
    check_workers(task, staff)
    check_network(task, torch.device(chosen.device))
    if "shard" not in settings:
        chosen = replace(chosen, shard=usual_shard(task, chosen, staff))
    bench = _bench(task, chosen)
    check_precision(bench)
    chosen = bench.settings
    store = None
    if out is not None:
        about = {"task": task.name, "network": task.network_name, "metric": task.metric.name,
                 "output": task.output, "usual_loss": task.usual_loss,
                 "higher_is_better": task.metric.higher_is_better,
                 "stacking": bench.stacking, "report": dict(report or {})}  # fmt: skip
        store = Store.create(Path(out), task=task.source, settings=chosen.to_json(), about=about)
    return _go(bench, store, observer, staff)


def resume(
    run: Path | str,
    *,
    task: Task | None = None,
    observer: Observer | None = None,
    workers: int | None = None,
    ray: str | None = None,
    limits: Limits | None = None,
    gpus_per_shard: float = 0.0,
    device: str | None = None,
    **budgets: float,
) -> Result:
    """Continues a run that was broken off; its history becomes what it would have been.

    task: needed only for a run whose task lived in memory. workers, ray: as of `search`, and
    whatever they were before. device: another than the run's, where that is not to be had; what
    follows is then rounded otherwise. budgets: larger ones, such as max_steps=10**6 or
    generations=100, with which a finished run goes on too.
    """
    staff = Staff(workers, ray, limits, gpus_per_shard)
    store = Store.open(Path(run), write=True)
    try:
        bench = _reopened(store, task, budgets, device)
        check_workers(bench.task, staff)
    except BaseException:
        store.close()
        raise
    return _go(bench, store, observer, staff)


def _go(bench: Workbench, store: Store | None, observer: Observer | None, staff: Staff) -> Result:
    """What a run finds. It closes the store at its end; one that cannot begin closes it too."""
    journal = None if store is None else Journal(store.directory / FOLDER)
    try:
        with executor(bench, staff, journal) as chosen:
            return Run(Supervised(bench, chosen), store, observer, journal).go()
    finally:
        if store is not None:
            store.close()


def _reopened(
    store: Store, task: Task | None, budgets: Mapping[str, float], device: str | None
) -> Workbench:
    """The workbench of a stored run, which is given larger budgets or another device if wanted.

    Raises UserError for a task that is not the run's.
    """
    run = store.directory
    if store.about.get("kind", "supervised") != "supervised":
        raise UserError(f"run {run} is one of unlearning: `evoloss resume` it")
    if task is None:
        if store.task is None:
            raise UserError(
                f"run {run} was started from Python with a task in memory: "
                "resume it with evoloss.resume(run, task=…)"
            )
        task = load_task(**store.task)
    for name, value in (("task", task.name), ("network", task.network_name)):
        if store.about[name] != value:
            raise UserError(
                f"run {run} is for {name} '{store.about[name]}', not '{value}': "
                "resume it with the task it was started with"
            )
    before = Settings.from_json(store.settings)
    settings = raised(before, budgets)
    if device is not None:
        settings = replace(replace(settings, device=device), device=resolved(device))
    bench = Workbench(task, settings, store.about["stacking"])
    if settings != before:
        store.extend(settings.to_json())
    return bench


def _bench(task: Task, settings: Settings) -> Workbench:
    """The workbench of a new run, in shards that fit into the memory of its device."""
    bench = Workbench(task, settings)
    together = bench.fitting
    if together >= (settings.shard or settings.population):
        return bench
    return Workbench(task, replace(settings, shard=together))


def _settings(name: str, changes: Mapping[str, Any]) -> Settings:
    known = set(Settings.__dataclass_fields__)
    for each in changes:
        if each not in known:
            raise UserError(f"unknown setting '{each}': known are {', '.join(sorted(known))}")
    return preset(name, **changes)
