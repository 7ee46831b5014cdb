"""A comparison on unlearning as a terminal table, and as CSV, JSON and Markdown files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import fmean

from rich.table import Table

from evoloss.compare.output import as_line
from evoloss.compare.unlearning_summary import METRICS, UnlearnRow, UnlearnSummary
from evoloss.tables import spread
from evoloss.unlearn_tables import COLUMNS
from evoloss.wording import counted

_STYLES = {"better": "green", "worse": "red", "failed": "red"}


def heading(summary: UnlearnSummary) -> str:
    """What the table shows."""
    rival = f"; p against {summary.best}, after Holm" if summary.best else ""
    return (
        f"{summary.task}, {summary.model}: {summary.objective} (higher is better), budget "
        f"{summary.budget} a search, {counted(summary.eval_seeds, 'adapter')} a loss on the test "
        f"part, {counted(summary.seeds, 'seed')}{rival}"
    )


def columns(summary: UnlearnSummary) -> list[str]:
    """The headings."""
    metrics = [COLUMNS.get(name, name) for name in _metrics(summary)]
    objective = summary.objective.replace("_", " ")
    return ["", "rank", f"search {objective}", f"test {objective}", *metrics, "p", "verdict",
            "candidates", "gradient steps", "seconds"]  # fmt: skip


def cells(summary: UnlearnSummary, row: UnlearnRow) -> list[str]:
    """A row's texts, under `columns`."""
    metrics = [_mean(row.metrics.get(name)) for name in _metrics(summary)]
    return [
        row.name, str(row.rank), spread(row.search), spread(row.test), *metrics, _p(row.p),
        row.verdict, f"{row.candidates:.0f}", f"{row.steps:,.0f}", f"{row.seconds:.0f}",
    ]  # fmt: skip


def model_cells(summary: UnlearnSummary) -> list[list[str]]:
    """The rows of the model before unlearning and of the retain model."""
    names = [summary.objective, *_metrics(summary)]
    return [
        [label, "", "", *(_number(values.get(name)) for name in names), *[""] * 5]
        for label, values in summary.models.items()
    ]


def _metrics(summary: UnlearnSummary) -> list[str]:
    return [name for name in METRICS if any(name in row.metrics for row in summary.rows)]


def _mean(values: tuple[float, ...] | None) -> str:
    """Nothing where one of them failed: those that are left would flatter it."""
    able = values and all(map(math.isfinite, values))
    return _number(fmean(values) if values and able else None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def terminal(summary: UnlearnSummary) -> Table:
    """For the terminal: what fits into 80 columns; the files have all of it."""
    table = Table(title=heading(summary), title_justify="left", box=None, pad_edge=False)
    shown = [name for name in _metrics(summary) if name in METRICS[:2]]
    objective = summary.objective.replace("_", " ")
    heads = ["", f"search {objective}", f"test {objective}",
             *(COLUMNS.get(name, name) for name in shown), "p", "verdict"]  # fmt: skip
    for head in heads:
        table.add_column(
            head, justify="left" if head in ("", "verdict") else "right", no_wrap=head != "verdict"
        )
    for row in sorted(summary.rows, key=lambda row: row.rank):
        table.add_row(
            row.name, spread(row.search), spread(row.test),
            *(_mean(row.metrics.get(name)) for name in shown), _p(row.p), row.verdict,
            style=_STYLES.get(row.verdict) if row.proposer else "dim",
        )  # fmt: skip
    return table


def save(summary: UnlearnSummary, folder: Path) -> list[Path]:
    """Writes results.csv, results.json and results.md; returns their paths."""
    paths = [folder / f"results.{ending}" for ending in ("csv", "json", "md")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["loss", *columns(summary)[1:], "formula"])
        writer.writerows([*cells(summary, row), row.formula] for row in summary.rows)
    paths[1].write_text(json.dumps(summary.to_json(), indent=2), encoding="utf-8")
    paths[2].write_text(markdown(summary), encoding="utf-8")
    return paths


def markdown(summary: UnlearnSummary) -> str:
    """For documents: the table, and the losses of the first seed."""
    names = columns(summary)
    lines = [heading(summary) + ".", "", as_line(names), as_line(["---"] * len(names))]
    lines += [as_line(each) for each in model_cells(summary)]
    lines += [as_line(cells(summary, row)) for row in summary.rows]
    losses = [f"- {row.name}: `{row.formula}`" for row in summary.rows]
    return "\n".join([*lines, "", "The losses of the first seed:", "", *losses, ""])
