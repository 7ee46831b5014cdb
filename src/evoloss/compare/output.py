"""A comparison as a terminal table, and as CSV, JSON and Markdown files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table

from evoloss.compare.summary import Row, Summary
from evoloss.tables import spread
from evoloss.wording import counted


def heading(summary: Summary) -> str:
    """What the table of a task shows."""
    direction = "higher" if summary.higher_is_better else "lower"
    return (
        f"{summary.task}, {summary.network}: {summary.metric} ({direction} is better), "
        f"{counted(summary.steps, 'training step')} × the factor in the heading, "
        f"mean of {counted(summary.trainings, 'training')} a search"
    )


def columns(summary: Summary) -> list[str]:
    """The headings."""
    factors = [f"test {factor}×" for factor in summary.rows[0].tests]
    return ["method", "rank", "validation", *factors, "p usual", "p tuned", "verdict",
            "candidates", "seconds", "parameters"]  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row's texts, under `columns`."""
    return [
        row.method, str(row.rank), spread(row.validation),
        *(spread(scores) for scores in row.tests.values()),
        _p(row.p_usual), _p(row.p_tuned), row.verdict,
        f"{row.candidates:.0f}", f"{row.seconds:.1f}", f"{row.parameters:.0f}",
    ]  # fmt: skip


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def terminal(summary: Summary) -> Table:
    """For the terminal: what fits into 80 columns; the files have all of it."""
    table = Table(title=heading(summary), title_justify="left", box=None, pad_edge=False)
    first, *others = summary.rows[0].tests
    for name in ("method", f"test {first}×", *(f"{factor}×" for factor in others), "s", "verdict"):
        table.add_column(name, justify="left" if name in ("method", "verdict") else "right")
    styles = {"better": "green", "worse": "red", "failed": "red"}
    for row in sorted(summary.rows, key=lambda row: row.rank):
        tests = [spread(row.tests[first])]
        tests += [f"{fmean(row.tests[factor]):.4g}" for factor in others]
        seconds = f"{row.seconds:.0f}"
        table.add_row(row.method, *tests, seconds, _told(row), style=styles.get(row.verdict))
    return table


def _told(row: Row) -> str:
    """The verdict with the p-value against the tuned usual loss."""
    if row.p_tuned is None:
        return row.verdict
    return f"{row.verdict}, p {row.p_tuned:.3f}"


def save(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Writes results.csv, results.json and results.md; returns their paths."""
    paths = [folder / f"results.{ending}" for ending in ("csv", "json", "md")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for index, summary in enumerate(summaries):
            if index == 0:
                writer.writerow(["task", *columns(summary), "formula"])
            writer.writerows([summary.task, *cells(row), row.formula] for row in summary.rows)
    plain = [
        {**vars(summary), "rows": [row.to_json() for row in summary.rows]} for summary in summaries
    ]
    paths[1].write_text(json.dumps(plain, indent=2), encoding="utf-8")
    paths[2].write_text("\n".join(markdown(each) for each in summaries), encoding="utf-8")
    return paths


def markdown(summary: Summary) -> str:
    """For documents."""
    names = columns(summary)
    lines = [heading(summary) + ".", "", as_line(names), as_line(["---"] * len(names))]
    lines += [as_line(cells(row)) for row in summary.rows]
    return "\n".join([*lines, ""])


def as_line(texts: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(texts) + " |"
