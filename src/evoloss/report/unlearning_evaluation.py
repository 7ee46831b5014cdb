"""Picture 9 of unlearning runs: the recorded evaluation on questions that no search ever saw."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss import unlearn_tables
from evoloss.report.palette import FOUND, MUTED, SERIES, USUAL
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Run
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
        "points are adapters, the bar is their mean. Hand-written losses were tuned on the search "
        "part first."
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
              partial(_draw, record, record["objective"], objective), height=_height(record)),
    ]  # fmt: skip
    if _has(record, "utility_kept"):
        panels.append(Panel("Forgotten and kept", partial(_draw_both, record), 2, _height(record)))
    tables = {_NAME: Table(("loss", "seed", "metric", "value"), rows)}
    text = f"{_table(record)}{_answers(record)}"
    return Picture(_NAME, _TITLE, caption.strip(), tuple(panels), tables, text)


def _height(record: Mapping[str, Any]) -> float:
    return max(2.2, 1.1 + 0.28 * len(record["rows"]))


def _has(record: Mapping[str, Any], name: str) -> bool:
    return any(_values(row, name) for row in record["rows"])


def _values(row: Mapping[str, Any], name: str) -> list[float]:
    return [each[name] for each in row["values"] if each is not None and name in each]


def _colours(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [FOUND if row["label"] == "found" else USUAL for row in rows]


def _draw(record: Mapping[str, Any], name: str, label: str, axes: Axes) -> None:
    rows = record["rows"]
    for place, (row, colour) in enumerate(zip(rows, _colours(rows), strict=True)):
        if values := _values(row, name):
            axes.barh(place, fmean(values), 0.62, color=colour, alpha=0.45)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4.5)
        else:
            axes.annotate("failed", (0.0, place), (4, 0), textcoords="offset points", va="center")
    _by_row(rows, axes)
    axes.set_xlabel(label)


def _draw_both(record: Mapping[str, Any], axes: Axes) -> None:
    rows = record["rows"]
    looks = (("forgetting", FOUND, "forgotten"), ("utility_kept", SERIES[1], "kept"))
    for side, (name, colour, label) in zip((-1, 1), looks, strict=True):
        means = [fmean(_values(row, name) or [0.0]) for row in rows]
        axes.barh(np.arange(len(rows)) + 0.19 * side, means, 0.36, color=colour, label=label)
    _by_row(rows, axes)
    axes.axvline(0.95, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)))
    axes.set_xlim(0.0, 1.05)
    axes.set_xlabel("share of the original model’s (dotted: 95 %)")


def _by_row(rows: Sequence[Mapping[str, Any]], axes: Axes) -> None:
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
    return f'<div class="scroll"><table>{text}</table></div>{_formulas(record)}'


def _formulas(record: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{html.escape(row['label'])}</dt><dd><code>{html.escape(row['formula'])}</code></dd>"
        for row in record["rows"]
    )
    return f'<details><summary>what they are</summary><dl class="terms">{items}</dl></details>'


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
