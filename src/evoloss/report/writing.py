"""Makes a report: reads the runs, measures what they did not keep, draws, and writes the files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from evoloss.discovery.settings import Settings
from evoloss.discovery.workbench import Workbench
from evoloss.engine.device import nearest
from evoloss.errors import UserError
from evoloss.report import (
    budget,
    curves,
    fates,
    front,
    landscape,
    lineage,
    losses,
    operators,
    progress,
    sensitivity,
    unlearning_balance,
    unlearning_curves,
    unlearning_evaluation,
    unlearning_losses,
)
from evoloss.report.drawing import save, style
from evoloss.report.header import header
from evoloss.report.measurements import Arm, Measurements
from evoloss.report.page import page
from evoloss.report.picture import Picture
from evoloss.report.runs import KIND, Group, Run, grouped, read, subject
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task

Tell = Callable[[str], None]

_MEASURED = (curves, landscape, sensitivity)
_TYPICAL = (-1.0, 0.0, 1.0)


def write(
    runs: Sequence[Path],
    output: Path,
    *,
    task: Task | None = None,
    progress: Tell = lambda what: None,
) -> None:
    """Writes a report on runs of one task: an HTML file, and beside it its pictures and data.

    output: the HTML file; the pictures go to a folder of its name with `-figures`.
    task: needed only for a run whose task lived in memory. progress: told what is being done.
    Raises: UserError for runs of different tasks, a run that cannot be read, a task that is not
    the runs', an output that cannot be written, or if matplotlib is not installed.
    """
    with style():
        progress("reading the runs")
        groups = grouped(read(runs))
        folder = _folder(output)
        if groups[0].runs[0].kind == KIND:
            pictures = _of_unlearning(groups)
        else:
            pictures = _pictures(groups, task, progress)
        progress("drawing")
        title, head = header(groups)
        try:
            for each in pictures:
                save(each, folder)
            output.write_text(page(title, head, pictures, folder.name), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write '{error.filename}': {error.strerror}") from error


def _folder(output: Path) -> Path:
    """The folder of the pictures, made before the work and not found impossible after it."""
    if output.is_dir():
        raise UserError(f"'{output}' is a directory: give the name of a file, such as report.html")
    folder = output.with_name(f"{output.stem}-figures")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make folder '{folder}' ({error.strerror}): choose another --output"
        ) from error
    return folder


def _pictures(groups: Sequence[Group], task: Task | None, tell: Tell) -> list[Picture]:
    best = subject([run for group in groups for run in group.runs])
    known, why = _task(groups[0].runs[0] if best is None else best, task)
    return [
        losses.picture(groups, _targets(known)),
        progress.picture(groups),
        fates.picture(groups),
        front.picture(groups),
        lineage.picture(best),
        operators.picture(groups),
        *_measured(best, known, why, tell),
        budget.picture(groups),
    ]


def _of_unlearning(groups: Sequence[Group]) -> list[Picture]:
    """The same for unlearning: all of it is in the store, and no model is loaded."""
    best = subject([run for group in groups for run in group.runs])
    return [
        unlearning_losses.picture(groups),
        progress.picture(groups),
        fates.picture(groups),
        front.picture(groups),
        lineage.picture(best),
        operators.picture(groups),
        unlearning_curves.picture(best),
        unlearning_balance.picture(groups),
        unlearning_evaluation.picture(best),
        budget.picture(groups),
    ]


def _task(run: Run, given: Task | None) -> tuple[Task | None, str]:
    """The runs' task, or None and why it is not to be had. Raises UserError for another's."""
    if given is not None:
        for name, value in (("task", given.name), ("network", given.network_name)):
            if run.about[name] != value:
                raise UserError(
                    f"run '{run.directory}' is for {name} '{run.about[name]}', not '{value}': "
                    "give the task it was started with"
                )
        return given, ""
    if run.source is None:
        return None, (
            "Not measured: the run’s task lived in memory; evoloss.report.write(runs, output, "
            "task=…) takes it from Python."
        )
    try:
        return load_task(**run.source), ""
    except UserError as error:
        return None, f"Not measured, for the task cannot be loaded: {error}."


def _measured(best: Run | None, task: Task | None, why: str, tell: Tell) -> list[Picture]:
    """Pictures 7 to 9, for which base networks are trained."""
    if best is None or best.best is None:
        why = "No loss has been scored yet."
    if task is None or best is None or best.best is None:
        return [Picture(each.NAME, each.TITLE, why) for each in _MEASURED]
    settings = Settings.from_json(best.settings)
    settings = replace(settings, device=nearest(settings.device))
    bench = Workbench(task, settings, best.about["stacking"])
    with bench.threads():
        tell("training with the found and the usual loss")
        found_arm = Arm(best.best.expression, best.best.momentum)
        measured = Measurements(bench, (found_arm, Arm(bench.usual)))
        found = []
        for each in _MEASURED:
            tell(f"measuring: {each.TITLE.lower()}")
            found.append(each.picture(measured))
    return found


def _targets(task: Task | None) -> tuple[float, ...]:
    """Typical targets of a regression: a low, a middle and a high one."""
    if task is None or task.output != "identity":
        return _TYPICAL
    y = task.episodes.search(0).train.y.double().flatten()
    spread, middle = float(y.std(correction=0)), float(y.mean())
    if not spread > 0:
        return (middle,)
    digits = 1 - math.floor(math.log10(spread))
    return tuple(round(middle + side * spread, digits) + 0.0 for side in (-1, 0, 1))
