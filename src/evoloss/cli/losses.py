"""The commands that look at a loss, found or written: its worth, its code, its run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli import options, unlearn, unlearn_runs
from evoloss.cli.options import DEFAULT_AGAINST
from evoloss.cli.shared import check_device, check_kind, given, new_console, say, write_json
from evoloss.cli.telling import compare, introduce
from evoloss.errors import UserError

if TYPE_CHECKING:
    from evoloss.runs import Subject

app = typer.Typer()


@app.command()
def evaluate(
    subject: options.Subject,
    task: Annotated[
        str | None,
        typer.Option(help="The task to evaluate on.", show_default="the run's own"),
    ] = None,
    seeds: options.Seeds = 5,
    steps: options.Steps = None,
    network: options.Network = None,
    data_dir: options.DataDir = None,
    target: options.Target = None,
    kind: options.Kind = None,
    drop_missing: options.DropMissing = False,
    against: options.Against = DEFAULT_AGAINST,
    tune: options.Tune = None,
    device: options.Device = None,
) -> None:
    """Compare a loss with the task's usual one on test data.

    An unlearning run's loss is compared with tuned hand-written ones (--against, --tune).
    """
    from evoloss import runs

    chosen = runs.subject(subject)
    data = given(
        network=network, data_dir=data_dir, target=target, kind=kind,
        drop_missing=drop_missing or None,
    )  # fmt: skip
    if chosen.kind == "unlearning":
        _check_known(chosen)
        check_kind(chosen.run, task=task, steps=steps, **data)
        check_device(device or "cpu")
        unlearn_runs.evaluate(chosen, against, tune, seeds, device)
        return
    if task is not None:
        data["spec"] = task
    elif chosen.source is not None:
        data = {**chosen.source, **data}
    else:
        raise UserError(f"'{subject}' says nothing of a task: name one with --task")
    from evoloss.tasks.registry import load_task

    loaded = load_task(**data)
    console = new_console()
    introduce(console, loaded, chosen.run)
    compare(console, loaded, chosen, seeds, steps, device or "cpu")


def _check_known(chosen: Subject) -> None:
    """Raises: UserError for an unlearning loss that is neither a run's nor a known one."""
    from evoloss.lang.zoo import ZOO

    if chosen.run is None and chosen.label not in ZOO:
        raise UserError(
            "the expression is an unlearning loss, and evaluated are only those of a run and, "
            "beside them, known ones: `evoloss evaluate RUN --against npo` (`evoloss zoo` lists "
            "them); `evoloss export` writes yours as code"
        )


@app.command()
def export(
    subject: options.Subject,
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
        check_kind(chosen.run, transform=transform)
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
def show(run: options.Run, as_json: options.AsJson = False) -> None:
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
    if description["kind"] == unlearn.KIND:
        console.print(unlearn_tables.front(description["trade_off"]))
        ways = description["operators"]
        for line in unlearn_tables.authors(description["settings"]["method"], ways):
            console.print(line)
    else:
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
        say(console, str(ended))
