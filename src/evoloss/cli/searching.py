"""The commands that search for a loss, and go on with a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli import options, unlearn, unlearn_runs
from evoloss.cli.shared import (
    check_device,
    check_kind,
    endless,
    given,
    new_console,
    staff,
    stoppable,
    watched,
)
from evoloss.cli.telling import conclude, introduce
from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.discovery.presets import METHODS
from evoloss.errors import UserError

if TYPE_CHECKING:
    from evoloss.discovery.result import Result
    from evoloss.discovery.settings import Settings
    from evoloss.tasks.task import Task

app = typer.Typer()


@app.command()
def search(
    task: options.Task,
    method: Annotated[
        str, typer.Option(help=f"How losses are proposed: {', '.join(METHODS)}.")
    ] = "evomal",
    network: options.Network = None,
    population: Annotated[
        int | None, typer.Option(help="Losses in a generation.", show_default="25")
    ] = None,
    generations: Annotated[
        int | None,
        typer.Option(help="How many generations.", show_default="50, or what a --max- allows"),
    ] = None,
    max_candidates: options.MaxCandidates = None,
    max_steps: options.MaxSteps = None,
    max_seconds: options.MaxSeconds = None,
    seed: options.Seed = 0,
    preset: Annotated[
        str, typer.Option(help="fast, or paper: the published procedure without savings.")
    ] = "fast",
    out: options.Out = None,
    data_dir: options.DataDir = None,
    target: options.Target = None,
    kind: options.Kind = None,
    drop_missing: options.DropMissing = False,
    local_search: Annotated[
        str | None,
        typer.Option(help=f"How a loss's weights are tuned: {', '.join(LOCAL_SEARCHES)} or none.",
                     show_default="unrolled"),
    ] = None,
    local_steps: Annotated[
        int | None, typer.Option(help="Steps of the local search.", show_default="250")
    ] = None,
    unroll: Annotated[
        int | None,
        typer.Option(help="Training steps that tuning looks through.",
                     show_default="by local search"),
    ] = None,
    fitness_steps: Annotated[
        int | None,
        typer.Option(help="Training steps before validation.", show_default="the task's own"),
    ] = None,
    fitness_seeds: Annotated[
        int | None,
        typer.Option(help="Trainings that one fitness averages.", show_default="by data"),
    ] = None,
    racing: Annotated[
        bool | None,
        typer.Option("--racing/--no-racing", help="Stop training the worse half early.",
                     show_default="by preset"),
    ] = None,
    stacking: Annotated[
        str | None,
        typer.Option(help="How networks are batched: auto, dense, vmap or loop.",
                     show_default="auto"),
    ] = None,
    device: options.Device = None,
    workers: options.Workers = None,
    ray: options.Ray = None,
    worker_seconds: options.WorkerSeconds = None,
    worker_memory: options.WorkerMemory = None,
    gpus_per_shard: options.GpusPerShard = None,
    others: options.Others = None,
    eval_seeds: options.Seeds = 5,
    eval_steps: options.Steps = None,
    track: options.Track = None,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Search for a loss and compare it with the task's usual one on test data."""
    from evoloss.discovery import settings

    budgets = given(max_candidates=max_candidates, max_steps=max_steps, max_seconds=max_seconds)
    if "generations" not in METHODS.get(method, {}):
        budgets = {**endless(budgets), **budgets}
    changes = budgets | given(
        population=population, generations=generations, local_search=local_search,
        local_steps=local_steps, unroll=unroll, fitness_steps=fitness_steps,
        fitness_seeds=fitness_seeds, racing=racing, stacking=stacking, device=device,
        method=method, seed=seed,
    )  # fmt: skip
    changes |= settings.Settings.parsed(others or ())
    wanted = settings.preset(preset, **changes)  # refuses a wrong value before any data is read
    check_device(wanted.device)
    hired = staff(workers, ray, worker_seconds, worker_memory, gpus_per_shard)
    data = given(
        network=network, data_dir=data_dir, target=target, kind=kind,
        drop_missing=drop_missing or None,
    )  # fmt: skip
    from evoloss.runs import new_directory
    from evoloss.tasks.registry import load_task

    loaded = load_task(task, **data)
    if workers is None and changes.get("shard", True):
        hired = hired or _usual(loaded, wanted)
    directory = out or new_directory(loaded.name)
    with stoppable(directory):
        from evoloss.discovery.search import search as search_for

        report = {"seeds": eval_seeds, "steps": eval_steps}
        go = partial(search_for, loaded, out=directory, preset=preset, report=report, **changes)
        _follow(go, loaded, directory, hired, eval_seeds, eval_steps, wanted.device, track, quiet)


@app.command()
def resume(
    run: options.Run,
    generations: Annotated[
        int | None, typer.Option(help="More generations than the run's.", show_default=False)
    ] = None,
    max_candidates: options.MaxCandidates = None,
    max_steps: options.MaxSteps = None,
    max_seconds: options.MaxSeconds = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    device: options.Device = None,
    workers: options.Workers = None,
    ray: options.Ray = None,
    worker_seconds: options.WorkerSeconds = None,
    worker_memory: options.WorkerMemory = None,
    gpus_per_shard: options.GpusPerShard = None,
    eval_seeds: options.OtherSeeds = None,
    eval_steps: options.OtherSteps = None,
    track: options.Track = None,
    quiet: options.Quiet = False,
) -> None:
    """Continue a run that was broken off; it ends as it would have without the break.

    A run keeps its budgets; with a larger one, a finished run goes on too.
    """
    from evoloss.discovery.settings import Settings
    from evoloss.store import Store

    budgets = given(
        generations=generations, max_candidates=max_candidates, max_steps=max_steps,
        max_seconds=max_seconds, max_tokens=max_tokens, max_cost=max_cost,
    )  # fmt: skip
    with Store.open(run, write=False) as store:
        source, about, before = store.task, store.about, store.settings
    unlearning = about.get("kind") == unlearn.KIND
    hired = staff(
        workers, ray, worker_seconds, worker_memory, gpus_per_shard,
        unasked="usual" if unlearning else None,
    )  # fmt: skip
    report = {"seeds": 5, "steps": None, **about.get("report", {})}
    report |= given(seeds=eval_seeds, steps=eval_steps)
    if unlearning:
        check_kind(run, eval_steps=eval_steps)
        check_device(device or "cpu")
        unlearn_runs.resume(run, budgets, eval_seeds, track, quiet, device, hired)
        return
    if source is None:
        raise UserError(
            f"run '{run}' was started in Python with a task in memory: "
            "resume it there, with evoloss.resume(run, task=...)"
        )
    chosen = device or before.get("device", "cpu")
    check_device(chosen)
    from evoloss.tasks.registry import load_task

    task = load_task(**source)
    if workers is None and before.get("shard"):
        hired = hired or _usual(task, Settings.from_json({**before, "device": chosen}))
    with stoppable(run):
        from evoloss.discovery.search import resume as resume_run

        go = partial(resume_run, run, task=task, device=device, **budgets)
        _follow(go, task, run, hired, report["seeds"], report["steps"], chosen, track, quiet)


def _usual(task: Task, settings: Settings) -> dict[str, Any]:
    """The workers of a search that was not told who works, as its arguments.

    Who did not ask for workers did not ask for their limit of time.
    """
    from evoloss.discovery.workers import workers_of
    from evoloss.execution.crew import Limits

    workers = workers_of(task, settings)
    return {} if workers is None else {"workers": workers, "limits": Limits(seconds=math.inf)}


def _follow(
    go: Callable[..., Result], task: Task, directory: Path, hired: dict[str, Any], seeds: int,
    steps: int | None, device: str, track: list[str] | None, quiet: bool,
) -> None:  # fmt: skip
    """A search from its introduction to its report. go: what searches, told who observes it.

    seeds, steps, device: of the comparison in the report.
    """
    console = new_console()
    introduce(console, task, directory, hired.get("workers"))
    with watched(console, task.metric.name, quiet, track, directory) as observer:
        result = go(observer=observer, **hired)
    conclude(console, task, result, seeds, steps, device)
