"""Picture 9 of unlearning runs: the recorded evaluation on questions that no search ever saw."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss import unlearn_tables
from evoloss.report.palette import FOUND, MUTED, SERIES, USUAL
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Run
from evoloss.tables import spread
from evoloss.unlearn.metrics.legend import legend, measured_names
from evoloss.unlearn_tables import scores
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "09-test"
_TITLE = "Questions that no choice was made by"
_NONE = "Not yet evaluated on the test part: `evoloss evaluate RUN` does."


def record_of(run: Run) -> Mapping[str, Any] | None:
    """The last evaluation of the run on the test part, if there is one."""
    records = [each for each in run.evaluations if each.get("kind") == run.kind]
    return records[-1] if records else None


def picture(run: Run | None) -> Picture:
    """The found loss beside hand-written ones and other models, and its answers."""
    record = None if run is None else record_of(run)
    if record is None:
        return Picture(_NAME, _TITLE, _NONE)
    seeds = max(len(row["values"]) for row in record["rows"])
    caption = (
        f"{unlearn_tables.verdict(record).plain} Every loss is trained on the whole forget set, "
        f"{counted(seeds, 'new adapter')} each, and measured on the test part of the data: "
        "points are adapters, the bar is their mean; a loss that failed on one of them has none. "
        "Hand-written losses were tuned on the search part first."
    )
    rows: list[tuple[object, ...]] = [
        (row["label"], seed, name, value)
        for row in record["rows"]
        for seed, values in enumerate(row["values"])
        for name, value in (values or {}).items()
    ]
    rows += [
        (label, None, name, value)
        for label, values in record["models"].items()
        for name, value in values.items()
    ]
    objective = record["objective"].replace("_", " ")
    panels = [
        Panel(objective.capitalize(),
              partial(_draw, record, objective), height=_height(record)),
    ]  # fmt: skip
    if _has(record, "utility_kept"):
        panels.append(Panel("Forgotten and kept", partial(_draw_both, record), 2, _height(record)))
    tables = {_NAME: Table(("loss", "seed", "metric", "value"), rows)}
    text = f"{_table(record)}{_answers(record)}"
    return Picture(_NAME, _TITLE, caption.strip(), tuple(panels), tables, text)


def _height(record: Mapping[str, Any]) -> float:
    return max(2.2, 1.1 + 0.28 * len(record["rows"]))


def _has(record: Mapping[str, Any], name: str) -> bool:
    return any(map(math.isfinite, (each for row in record["rows"] for each in scores(row, name))))


def _mean(values: Sequence[float]) -> float:
    """The length of a bar: none if a training failed."""
    return fmean(values) if all(map(math.isfinite, values)) else 0.0


def _colours(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [FOUND if row["label"] == "found" else USUAL for row in rows]


def _draw(record: Mapping[str, Any], label: str, axes: Axes) -> None:
    rows = record["rows"]
    for place, (row, colour) in enumerate(zip(rows, _colours(rows), strict=True)):
        values = scores(row, record["objective"])
        axes.barh(place, _mean(values), 0.62, color=colour, alpha=0.45)
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=4.5)
    _by_row(record, axes)
    axes.set_xlabel(label)


def _draw_both(record: Mapping[str, Any], axes: Axes) -> None:
    rows = record["rows"]
    looks = (("forgetting", FOUND, "forgotten"), ("utility_kept", SERIES[1], "kept"))
    for side, (name, colour, label) in zip((-1, 1), looks, strict=True):
        means = [_mean(scores(row, name)) for row in rows]
        axes.barh(np.arange(len(rows)) + 0.19 * side, means, 0.36, color=colour, label=label)
    _by_row(record, axes)
    axes.axvline(0.95, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)))
    axes.set_xlim(0.0, 1.05)
    axes.set_xlabel("share of the original model’s (dotted: 95 %)")


def _by_row(record: Mapping[str, Any], axes: Axes) -> None:
    """Names the rows, and says of those without a bar on how many adapters they failed."""
    rows = record["rows"]
    for place, row in enumerate(rows):
        values = scores(row, record["objective"])
        if not all(map(math.isfinite, values)):
            where = (0.0, place), (4, 0)
            axes.annotate(spread(values), *where, textcoords="offset points", va="center")
    axes.set_yticks(np.arange(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.grid(False, axis="y")


def _table(record: Mapping[str, Any]) -> str:
    head, *lines = unlearn_tables.cells(record)
    labels = {row["label"]: row for row in record["rows"]}
    text = _line("th", [*head, "epochs", "rate"])
    for line in lines:
        row = labels.get(line[0], {})
        text += _line("td", [*line, _shown(row.get("epochs")), _shown(row.get("lr"))])
    why = "".join(
        f'<div class="facts">{html.escape(line)}</div>' for line in unlearn_tables.failures(record)
    )
    return (
        f'<div class="scroll"><table>{text}</table></div>{why}{_formulas(record)}{_legend(record)}'
    )


def _formulas(record: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{html.escape(row['label'])}</dt><dd><code>{html.escape(row['formula'])}</code></dd>"
        for row in record["rows"]
    )
    return f'<details><summary>what they are</summary><dl class="terms">{items}</dl></details>'


def _legend(record: Mapping[str, Any]) -> str:
    """What was measured, which way is better, and what values there can be."""
    items = ""
    for name, each in legend(measured_names(record)).items():
        column = unlearn_tables.COLUMNS.get(name, name)
        label = name if column == name else f"{name} ({column})"
        low, high = ("∞" if end is None else f"{end:g}" for end in each["range"])
        text = (
            f"{each['definition']}; {each['better']} is better; {low} to {high}; {each['source']}"
        )
        items += f"<dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd>"
    return f'<details><summary>the metrics</summary><dl class="terms">{items}</dl></details>'


def _line(cell: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{html.escape(text)}</{cell}>' for text in texts)}</tr>"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _answers(record: Mapping[str, Any]) -> str:
    """Questions to forget, with the found loss's answers before and after."""
    items = "".join(
        f"<li><b>{html.escape(each['question'])}</b><dl class=\"terms\">"
        + "".join(
            f"<dt>{name}</dt><dd>{html.escape(text) or '(nothing)'}</dd>"
            for name, text in (("true", each["truth"]), ("before", each["before"]),
                               ("after", each["after"]["found"]))
        )
        + "</dl></li>"
        for each in record["samples"]
        if "found" in each["after"]
    )  # fmt: skip
    return f'<h4>Answers to forget, before and after</h4><ol class="answers">{items}</ol>'
