"""The commands that list what there is: runs, tasks, known losses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evoloss.cli import options
from evoloss.cli.shared import new_console, write_json

app = typer.Typer()


@app.command("runs")
def list_runs(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder of runs.", show_default="runs")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the runs in a folder."""
    from evoloss import runs

    folder = directory or runs.FOLDER
    summaries = [runs.summary(each) for each in runs.runs_in(folder)]
    if as_json:
        write_json(summaries)
    elif not summaries:
        typer.echo(f"no runs in '{folder}': start one with `evoloss search TASK`")
    else:
        from evoloss import tables

        new_console().print(tables.runs(summaries))


@app.command()
def tasks() -> None:
    """List the named tasks."""
    from evoloss.tasks.registry import TASKS

    for name, description in TASKS.items():
        typer.echo(f"{name:14} {description}")


@app.command("zoo")
def list_zoo() -> None:
    """List the known losses."""
    from evoloss.lang import zoo
    from evoloss.lang.text import to_text

    for name, entry in zoo.ZOO.items():
        typer.echo(f"{name:26} {entry.kind:14} {to_text(zoo.loss(name), digits=4)}")
