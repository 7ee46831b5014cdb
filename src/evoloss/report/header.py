"""The top of the page: what was searched for, what was found, and what it is worth on test data."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from evoloss.discovery.comparison import compare
from evoloss.report import unlearning_evaluation
from evoloss.report.mathematics import formula
from evoloss.report.runs import KIND, Group, Run, subject
from evoloss.tables import Measure
from evoloss.tables import verdict as against_usual
from evoloss.unlearn_tables import verdict
from evoloss.wording import counted


def header(groups: Sequence[Group]) -> tuple[str, str]:
    """The page's title and the HTML above the pictures."""
    runs = [run for group in groups for run in group.runs]
    best, about = subject(runs), runs[0].about
    title = f"Losses for {about['task']}"
    what, shown = ("model", "7 and 9") if runs[0].kind == KIND else ("network", "7 to 9")
    words = f"{what} {about['network']} · {counted(len(runs), 'run')} · {_seeds(runs)}"
    parts = [f"<h1>{html.escape(title)}</h1>", f'<div class="facts">{html.escape(words)}</div>']
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        names = ", ".join(str(run.directory) for run in unfinished)
        text = f"Not finished, shown as far as it has come: {names}"
        parts.append(f'<div class="facts">{html.escape(text)}</div>')
    parts.append(_tiles(runs, best))
    if best is not None and best.best is not None:
        parts.append(f'<div class="best">{formula(best.best.expression)}{_worth(best)}</div>')
        if len(runs) > 1:
            text = (
                f"This loss, and pictures 5, {shown}, are of run {best.directory}, "
                "of those that searched the one with the lowest validation error."
            )
            parts.append(f'<div class="facts">{html.escape(text)}</div>')
    if len(groups) > 1:
        parts.append(_methods(groups))
    return title, "\n".join(parts)


def _seeds(runs: Sequence[Run]) -> str:
    seeds = sorted({run.settings["seed"] for run in runs})
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _tiles(runs: Sequence[Run], best: Run | None) -> str:
    seconds = sum(sum(run.budget.seconds.values()) for run in runs)
    tiles = [
        ("candidates", f"{sum(run.budget.candidates for run in runs):,}"),
        ("trained", f"{sum(run.budget.evaluated for run in runs):,}"),
        ("gradient steps", f"{sum(run.budget.steps for run in runs):,}"),
        ("search time", f"{seconds:,.0f} s"),
    ]
    if best is not None and best.best is not None:
        shown = best.measure.shown(best.best.error)
        tiles.insert(0, (f"best validation {best.measure.name}", shown))
        tiles.append(("complexity of the best", str(best.best.complexity)))
    items = (f"<div><dt>{html.escape(name)}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{"".join(items)}</dl>'


def _worth(run: Run) -> str:
    """The verdict of the last evaluation on the run's own test data, if there is one."""
    if run.kind == KIND:
        record = unlearning_evaluation.record_of(run)
        told = verdict(record).plain if record else "Not yet evaluated on the test part."
        return f'<div class="facts">{html.escape(told)}</div>'
    records = [each for each in run.evaluations if each["task"] == run.about["task"]]
    if not records:
        text = "Not yet evaluated on test data."
        return f'<div class="facts">{text}</div>'
    record = records[-1]
    mine, usual = (_scores(row) for row in record["rows"][:2])
    measure = Measure(record["metric"], record["higher_is_better"])
    compared = compare(mine, usual, higher_is_better=measure.higher_is_better)
    sentence = against_usual(compared, measure, record["rows"][0]["label"])
    text = f"{sentence} {counted(record['steps'], 'step')}."
    return f'<div class="facts">{html.escape(text)}</div>'


def _scores(row: dict[str, Any]) -> list[float]:
    return [math.nan if score is None else score for score in row["scores"]]


def _methods(groups: Sequence[Group]) -> str:
    """One line a method: seeds, best and mean validation score of the found losses."""
    lines = []
    for group in groups:
        errors = [run.best.error for run in group.runs if run.best is not None]
        measure = group.runs[0].measure
        mean = sum(errors) / len(errors) if errors else None
        cells = (group.label, str(len(group.runs)), measure.shown(min(errors, default=None)),
                 measure.shown(mean))  # fmt: skip
        lines.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    name = html.escape(groups[0].runs[0].measure.name)
    head = f"<tr><th>method</th><th>runs</th><th>best {name}</th><th>mean {name}</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
