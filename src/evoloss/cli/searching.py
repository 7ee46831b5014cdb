"""The commands that search for a loss, and go on with a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evoloss.cli import unlearn, unlearning
from evoloss.cli.options import (
    DATA_DIR,
    DEVICE,
    DROP_MISSING,
    GPUS_PER_SHARD,
    KIND,
    MAX_CANDIDATES,
    MAX_COST,
    MAX_SECONDS,
    MAX_STEPS,
    MAX_TOKENS,
    NETWORK,
    OUT,
    QUIET,
    RAY,
    RUN,
    SEED,
    SEEDS,
    SET,
    STEPS,
    TARGET,
    TASK,
    TRACK,
    WORKER_MEMORY,
    WORKER_SECONDS,
    WORKERS,
)
from evoloss.cli.shared import check_device, endless, given, new_console, staff, stoppable, watched
from evoloss.cli.telling import conclude, introduce
from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.discovery.settings import METHODS
from evoloss.errors import UserError

app = typer.Typer()


@app.command()
def search(
    task: Annotated[str, TASK],
    method: Annotated[
        str, typer.Option(help=f"How losses are proposed: {', '.join(METHODS)}.")
    ] = "evomal",
    network: Annotated[str | None, NETWORK] = None,
    population: Annotated[
        int | None, typer.Option(help="Losses in a generation.", show_default="25")
    ] = None,
    generations: Annotated[
        int | None,
        typer.Option(help="How many generations.", show_default="50, or what a --max- allows"),
    ] = None,
    max_candidates: Annotated[int | None, MAX_CANDIDATES] = None,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
    max_seconds: Annotated[float | None, MAX_SECONDS] = None,
    seed: Annotated[int, SEED] = 0,
    preset: Annotated[
        str, typer.Option(help="fast, or paper: the published procedure without savings.")
    ] = "fast",
    out: Annotated[Path | None, OUT] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    target: Annotated[str | None, TARGET] = None,
    kind: Annotated[str | None, KIND] = None,
    drop_missing: Annotated[bool, DROP_MISSING] = False,
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
    device: Annotated[str | None, DEVICE] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
    worker_seconds: Annotated[float | None, WORKER_SECONDS] = None,
    worker_memory: Annotated[float | None, WORKER_MEMORY] = None,
    gpus_per_shard: Annotated[float | None, GPUS_PER_SHARD] = None,
    others: Annotated[list[str] | None, SET] = None,
    eval_seeds: Annotated[int, SEEDS] = 5,
    eval_steps: Annotated[int | None, STEPS] = None,
    track: Annotated[list[str] | None, TRACK] = None,
    quiet: Annotated[bool, QUIET] = False,
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
    options = given(
        network=network, data_dir=data_dir, target=target, kind=kind,
        drop_missing=drop_missing or None,
    )  # fmt: skip
    from evoloss.runs import new_directory
    from evoloss.tasks.registry import load_task

    loaded = load_task(task, **options)
    directory = out or new_directory(loaded.name)
    console = new_console()
    introduce(console, loaded, directory)
    with stoppable(directory):
        from evoloss.discovery.search import search as search_for

        with watched(console, loaded.metric.name, quiet, track, directory) as observer:
            result = search_for(
                loaded, out=directory, observer=observer, preset=preset, **hired, **changes
            )
        conclude(console, loaded, result, eval_seeds, eval_steps, wanted.device)


@app.command()
def resume(
    run: Annotated[Path, RUN],
    generations: Annotated[
        int | None, typer.Option(help="More generations than the run's.", show_default=False)
    ] = None,
    max_candidates: Annotated[int | None, MAX_CANDIDATES] = None,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
    max_seconds: Annotated[float | None, MAX_SECONDS] = None,
    max_tokens: Annotated[int | None, MAX_TOKENS] = None,
    max_cost: Annotated[float | None, MAX_COST] = None,
    device: Annotated[str | None, DEVICE] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
    worker_seconds: Annotated[float | None, WORKER_SECONDS] = None,
    worker_memory: Annotated[float | None, WORKER_MEMORY] = None,
    gpus_per_shard: Annotated[float | None, GPUS_PER_SHARD] = None,
    eval_seeds: Annotated[int, SEEDS] = 5,
    eval_steps: Annotated[int | None, STEPS] = None,
    track: Annotated[list[str] | None, TRACK] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Continue a run that was broken off; it ends as it would have without the break.

    A run keeps its budgets; with a larger one, a finished run goes on too.
    """
    from evoloss.store import Store

    budgets = given(
        generations=generations, max_candidates=max_candidates, max_steps=max_steps,
        max_seconds=max_seconds, max_tokens=max_tokens, max_cost=max_cost,
    )  # fmt: skip
    hired = staff(workers, ray, worker_seconds, worker_memory, gpus_per_shard)
    with Store.open(run, write=False) as store:
        source, kind, before = store.task, store.about.get("kind"), store.settings
    if kind == unlearn.KIND:
        if device is not None:
            raise UserError(
                f"run '{run}' is one of unlearning, which chooses its device itself: "
                "leave --device out"
            )
        unlearning.resume(run, budgets, eval_seeds, track, quiet, hired)
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
    console = new_console()
    introduce(console, task, run)
    with stoppable(run):
        from evoloss.discovery.search import resume as resume_run

        with watched(console, task.metric.name, quiet, track, run) as observer:
            result = resume_run(
                run, task=task, observer=observer, device=device, **hired, **budgets
            )
        conclude(console, task, result, eval_seeds, eval_steps, chosen)
