"""What the commands print of tasks, results and comparisons."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from evoloss.cli.shared import say, say_ending
from evoloss.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.discovery.result import Result
    from evoloss.runs import Subject
    from evoloss.tasks.task import Task


def introduce(
    console: Console, task: Task, directory: Path | None, workers: int | None = None
) -> None:
    """What is worked on, by how many workers besides this process, and where it is kept."""
    where = "" if directory is None else f", run {directory}"
    who = "" if workers is None else f", {counted(workers, 'worker')}"
    text = f"task {task.name}, network {task.network_name}{who}{where}"
    for line in (text, *(f"note: {note}" for note in task.notes)):
        say(console, line)


def conclude(
    console: Console, task: Task, result: Result, seeds: int, steps: int | None, device: str
) -> None:
    """The report at the end of a search."""
    from evoloss import runs, tables

    measure = tables.Measure(task.metric.name, task.metric.higher_is_better)
    console.print(tables.found_loss(result.best, measure))
    console.print(tables.front(result.front, measure))
    found = runs.Subject("found", result.best.expression, result.run)
    compare(console, task, found, seeds, steps, device)
    console.print(tables.budget(result.budget))
    if result.run is not None:
        run = shlex.quote(str(result.run))
        hints = f"PyTorch code:  evoloss export {run} -o loss.py\nthis and more: evoloss show {run}"
        say(console, hints)
    say_ending(console, result)


def compare(
    console: Console, task: Task, subject: Subject, seeds: int, steps: int | None, device: str
) -> None:
    """Evaluates on test data against the usual loss, prints it, and keeps that of a run's best."""
    from evoloss import runs, tables
    from evoloss.discovery.evaluate import evaluate as evaluate_losses
    from evoloss.lang.parse import parse
    from evoloss.store import Store

    losses = {subject.label: subject.expression, "usual": parse(task.usual_loss)}
    # Opened first: a run that cannot be written to is told before the work, not after it.
    kept = subject.run if subject.candidate is None else None
    with nullcontext() if kept is None else Store.open(kept, write=True) as store:
        with console.status("training on test episodes"):
            evaluation = evaluate_losses(task, losses, seeds=seeds, steps=steps, device=device)
        record = runs.evaluation_record(evaluation)
        console.print(tables.comparison(record))
        if store is not None:
            store.add_evaluation(record)
