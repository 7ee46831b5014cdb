"""The commands that compare, transfer, report and watch."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli import options
from evoloss.cli.shared import comparing, given, new_console, say, takes_no_run
from evoloss.errors import UserError

if TYPE_CHECKING:
    from evoloss.tasks.task import Task

app = typer.Typer()


@app.command()
def compare(
    directory: options.NoRun = None,
    task: Annotated[
        str, typer.Option(help="Task names, separated by commas.", show_default=False)
    ] = "",
    methods: Annotated[
        str,
        typer.Option(help="Methods, separated by commas; the task loss, also with its learning "
                     "rate and momentum tuned, is always among them."),
    ] = "random,gplfl,taylorglo,evomal",
    seeds: Annotated[int, typer.Option(help="Searches of each method.", min=1)] = 5,
    budget: Annotated[
        str, typer.Option(help="Of each search: candidates=N, seconds=N or steps=N.")
    ] = "candidates=1250",
    population: Annotated[
        int | None, typer.Option(help="Losses in a generation.", show_default="25")
    ] = None,
    preset: Annotated[str, typer.Option(help="fast or paper.")] = "fast",
    factors: Annotated[
        str, typer.Option(help="Training steps of the tests, in multiples of a fitness's.")
    ] = "1,4,10",
    trainings: Annotated[
        int, typer.Option(help="Networks trained for each found loss and test.", min=1)
    ] = 3,
    local_steps: Annotated[
        int | None, typer.Option(help="Steps of the local search.", show_default="250")
    ] = None,
    fitness_steps: Annotated[
        int | None,
        typer.Option(help="Training steps before validation.", show_default="the task's own"),
    ] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Losses scored again at the end.", show_default="10")
    ] = None,
    final_seeds: Annotated[
        int | None, typer.Option(help="Trainings that they are scored on.", show_default="5")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Searches that run at once.", min=1,
                     show_default="one a processor, 1 for a budget of seconds"),
    ] = None,
    network: options.Network = None,
    data_dir: options.DataDir = None,
    out: Annotated[Path, typer.Option(help="Where the runs and tables are kept.")] = Path(
        "comparison"
    ),
) -> None:  # fmt: skip
    """Compare methods on tasks at one budget; what is done already is not done again."""
    takes_no_run(
        directory, "methods", "` compares a run's loss with the usual one, with --against npo an "
        "unlearning run's with hand-written ones",
    )  # fmt: skip
    if not task:
        raise UserError("nothing to compare methods on: give --task")
    from evoloss.compare.plan import Plan, parse_budget

    specs, each = names(task), parse_budget(budget)
    if jobs is None:
        jobs = 1 if each.kind == "seconds" else os.cpu_count() or 1
    plan = Plan(
        specs, names(methods), seeds, each, out, preset, _factors(factors),
        trainings,
        given(population=population, local_steps=local_steps, fitness_steps=fitness_steps,
              finalists=finalists, final_seeds=final_seeds),
        jobs,
    )  # fmt: skip
    from evoloss.compare import output
    from evoloss.compare.runner import run
    from evoloss.compare.summary import summarise
    from evoloss.tasks.registry import load_task

    data = given(network=network, data_dir=data_dir)
    tasks = [(_folder(spec), load_task(spec, **data)) for spec in specs]
    console = new_console()
    with comparing(out):
        run(plan, tasks, partial(say, console))
    summaries = [
        summarise(plan, spec, folder, loaded)
        for spec, (folder, loaded) in zip(specs, tasks, strict=True)
    ]
    for summary in summaries:
        console.print(output.terminal(summary))
    for path in output.save(summaries, out):
        say(console, f"saved {path}")


@app.command()
def transfer(
    run: options.Run,
    task: Annotated[str, typer.Option(help="The task to try the loss on.")],
    network: options.Network = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each loss.", min=1)] = 5,
    steps: options.Steps = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Try a run's loss on another task or network, against that task's usual loss."""
    import json

    from evoloss import runs, tables
    from evoloss.discovery.evaluate import evaluate
    from evoloss.lang.parse import parse
    from evoloss.tasks.registry import load_task

    chosen = runs.subject(str(run))
    if chosen.run is None:
        raise UserError(f"'{run}' is not a run directory: transfer takes a run")
    if chosen.kind == "unlearning":
        raise UserError(
            f"the loss of '{run}' is one of unlearning, which no task can use: `evoloss evaluate "
            f"{run} --against npo` compares it with others"
        )
    loaded: Task = load_task(task, **given(network=network, data_dir=data_dir))
    if chosen.output != loaded.output:
        raise UserError(
            f"the loss of '{run}' is for predictions after {chosen.output}, task '{loaded.name}' "
            f"has {loaded.output}: choose a task of the same kind"
        )
    losses = {"transferred": chosen.expression, "usual": parse(loaded.usual_loss)}
    record = runs.evaluation_record(evaluate(loaded, losses, seeds=seeds, steps=steps))
    if as_json:
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        new_console().print(tables.comparison(record))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Runs of one task.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a report with pictures: one HTML file, and beside it each picture and its data."""
    from evoloss.report import write

    console = new_console()
    with console.status("reading") as status:
        write(runs, output, progress=status.update)
    say(console, f"saved {output}")


@app.command()
def watch(run: options.Run) -> None:
    """Follow a search that runs elsewhere, until it ends."""
    import time

    from evoloss import runs
    from evoloss.display import display
    from evoloss.store import Store

    with Store.open(run, write=False) as store:
        metric = store.about["metric"]
    last = -1
    try:
        with display(new_console(), metric) as observer:
            while True:
                with Store.open(run, write=False) as store:
                    if store.generations != last:
                        last = store.generations
                        observer(runs.progress(store))
                    done = store.outcome is not None
                if done:
                    break
                time.sleep(1.0)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"finished: evoloss show {run}")


def names(text: str) -> list[str]:
    """Names that are separated by commas, each once."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise UserError(f"'{text}' names nothing: give names separated by commas")
    return list(dict.fromkeys(found))


def _factors(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise UserError(f"--factors '{text}': give whole numbers such as 1,4,10") from None


def _folder(spec: str) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(spec).name).strip("-.") or "task"
