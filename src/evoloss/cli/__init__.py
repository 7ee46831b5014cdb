"""The command line. Only here is anything printed; heavy modules are imported inside commands."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli import evidence, lists, unlearn, unlearning
from evoloss.cli.options import (
    AGAINST,
    DATA_DIR,
    DEFAULT_AGAINST,
    DEVICE,
    DROP_MISSING,
    GPUS_PER_SHARD,
    JSON,
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
    SUBJECT,
    TARGET,
    TASK,
    TRACK,
    TUNE,
    WORKER_MEMORY,
    WORKER_SECONDS,
    WORKERS,
)
from evoloss.cli.shared import (
    endless,
    given,
    new_console,
    say_ending,
    staff,
    stoppable,
    watched,
    with_address,
    write_json,
)
from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.discovery.settings import METHODS
from evoloss.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.discovery.result import Result
    from evoloss.runs import Subject
    from evoloss.tasks.task import Task

app = typer.Typer(
    help="Discovers the loss function that a model should be trained with.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(lists.app)
app.add_typer(evidence.app)
app.add_typer(unlearn.app, name="unlearn", help="Losses that make a language model forget.")


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
    _introduce(console, loaded, directory)
    with stoppable(directory):
        from evoloss.discovery.search import search as search_for

        with watched(console, loaded.metric.name, quiet, track, directory) as observer:
            result = search_for(
                loaded, out=directory, observer=observer, preset=preset, **hired, **changes
            )
        _conclude(console, loaded, result, eval_seeds, eval_steps, wanted.device)


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
    from evoloss.tasks.registry import load_task

    task = load_task(**source)
    console = new_console()
    _introduce(console, task, run)
    with stoppable(run):
        from evoloss.discovery.search import resume as resume_run

        with watched(console, task.metric.name, quiet, track, run) as observer:
            result = resume_run(
                run, task=task, observer=observer, device=device, **hired, **budgets
            )
        _conclude(
            console, task, result, eval_seeds, eval_steps, device or before.get("device", "cpu")
        )


@app.command()
def evaluate(
    subject: Annotated[str, SUBJECT],
    task: Annotated[
        str | None,
        typer.Option(help="The task to evaluate on.", show_default="the run's own"),
    ] = None,
    seeds: Annotated[int, SEEDS] = 5,
    steps: Annotated[int | None, STEPS] = None,
    network: Annotated[str | None, NETWORK] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    target: Annotated[str | None, TARGET] = None,
    kind: Annotated[str | None, KIND] = None,
    drop_missing: Annotated[bool, DROP_MISSING] = False,
    against: Annotated[str, AGAINST] = DEFAULT_AGAINST,
    tune: Annotated[int | None, TUNE] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Compare a loss with the task's usual one on test data.

    An unlearning run's loss is compared with tuned hand-written ones (--against, --tune).
    """
    from evoloss import runs

    chosen = runs.subject(subject)
    if chosen.kind == "unlearning":
        unlearning.evaluate(chosen, against, tune, seeds)
        return
    options = given(
        network=network, data_dir=data_dir, target=target, kind=kind,
        drop_missing=drop_missing or None,
    )  # fmt: skip
    if task is not None:
        options["spec"] = task
    elif chosen.source is not None:
        options = {**chosen.source, **options}
    else:
        raise UserError(f"'{subject}' says nothing of a task: name one with --task")
    from evoloss.tasks.registry import load_task

    loaded = load_task(**options)
    console = new_console()
    _introduce(console, loaded, chosen.run)
    _compare(console, loaded, chosen, seeds, steps, device or "cpu")


@app.command()
def export(
    subject: Annotated[str, SUBJECT],
    format: Annotated[str, typer.Option(help="torch, latex, sympy or json.")] = "torch",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file.", show_default="the terminal")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    transform: Annotated[
        str | None,
        typer.Option(
            help="From the network's raw output to f: identity, sigmoid or softmax.",
            show_default="the run's own; identity for an expression",
        ),
    ] = None,
) -> None:
    """Write a loss for use elsewhere; the PyTorch file needs only torch."""
    from evoloss import runs
    from evoloss.lang.export import export as export_loss
    from evoloss.lang.export import export_batch

    chosen = runs.subject(subject)
    if chosen.kind == "unlearning":
        text = export_batch(chosen.expression, runs.signature(chosen.expression), format)
    else:
        text = export_loss(chosen.expression, runs.transform(transform, chosen), format)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"'{output}' exists: overwrite it with --force") from None
    except OSError as error:
        raise UserError(f"cannot write '{output}': {error.strerror}") from error


@app.command()
def show(run: Annotated[Path, RUN], as_json: Annotated[bool, JSON] = False) -> None:
    """Tell what a run has found so far, and what it cost."""
    from evoloss import runs, tables, unlearn_tables
    from evoloss.discovery.budgets import Ending
    from evoloss.store import Store

    with Store.open(run, write=False) as store:
        overview = runs.Overview(store)
        description, best = runs.description(overview), overview.best
        found, spent = overview.losses, overview.budget
        ended = Ending.of(store.outcome)
    if as_json:
        write_json(description)
        return
    console = new_console()
    console.print(tables.run(description))
    if found.best is None:
        console.print("no loss has been scored yet")
        return
    measure = tables.Measure(description["metric"], description["higher_is_better"])
    console.print(tables.found_loss(found.best, measure))
    console.print(tables.front(found.front, measure))
    console.print(tables.candidates(best, measure))
    for record in description["evaluations"]:
        if record.get("kind") == unlearn.KIND:
            console.print(unlearn_tables.evaluation(record))
            console.print(unlearn_tables.samples(record))
        else:
            console.print(tables.comparison(record))
    console.print(tables.budget(spent))
    if ended is not None:
        console.print(str(ended), markup=False, soft_wrap=True)


def _introduce(console: Console, task: Task, directory: Path | None) -> None:
    where = "" if directory is None else f", run {directory}"
    text = f"task {task.name}, network {task.network_name}{where}"
    for line in (text, *(f"note: {note}" for note in task.notes)):
        console.print(line, markup=False, soft_wrap=True)


def _conclude(
    console: Console, task: Task, result: Result, seeds: int, steps: int | None, device: str
) -> None:
    """The report at the end of a search."""
    from evoloss import runs, tables

    measure = tables.Measure(task.metric.name, task.metric.higher_is_better)
    console.print(tables.found_loss(result.best, measure))
    console.print(tables.front(result.front, measure))
    found = runs.Subject("found", result.best.expression, result.run)
    _compare(console, task, found, seeds, steps, device)
    console.print(tables.budget(result.budget))
    if result.run is not None:
        run = shlex.quote(str(result.run))
        hints = f"PyTorch code:  evoloss export {run} -o loss.py\nthis and more: evoloss show {run}"
        console.print(hints, markup=False, soft_wrap=True)
    say_ending(console, result)


def _compare(
    console: Console, task: Task, subject: Subject, seeds: int, steps: int | None, device: str
) -> None:
    """Evaluates on test data against the usual loss, prints it, and keeps it with the run."""
    from evoloss import runs, tables
    from evoloss.discovery.evaluate import evaluate as evaluate_losses
    from evoloss.lang.parse import parse
    from evoloss.store import Store

    losses = {subject.label: subject.expression, "usual": parse(task.usual_loss)}
    # Opened first: a run that cannot be written to is told before the work, not after it.
    with nullcontext() if subject.run is None else Store.open(subject.run, write=True) as store:
        with console.status("training on test episodes"):
            evaluation = evaluate_losses(task, losses, seeds=seeds, steps=steps, device=device)
        record = runs.evaluation_record(evaluation)
        console.print(tables.comparison(record))
        if store is not None:
            store.add_evaluation(record)


def main() -> None:
    """The entry point `evoloss`: a user's mistake is one line and status 2."""
    try:
        app(with_address(sys.argv[1:]))
    except UserError as error:
        typer.echo(f"evoloss: error: {error}", err=True)
        sys.exit(2)
