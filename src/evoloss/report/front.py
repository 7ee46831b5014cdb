"""Picture 4: the Pareto front of error against complexity, each point with its formula."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from evoloss.discovery.candidate import Fate
from evoloss.lang.text import EXACT, to_text
from evoloss.report.limits import limits
from evoloss.report.mathematics import formula
from evoloss.report.palette import INK, MUTED, PAPER, series, variable
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import KIND, Group, Run
from evoloss.report.stretches import thinned
from evoloss.store.entry import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "04-front"
_POINTS = 2000
_TITLE = "Error against complexity"
_UNLEARNING = "Score against complexity"


def picture(groups: Sequence[Group]) -> Picture:
    """The front of each method's best run, over all that was scored in it."""
    able = [(group.label, group.best) for group in groups if group.best is not None]
    if not able:
        return Picture(_NAME, _TITLE, "No loss has been scored yet.")
    run = able[0][1]
    rows = [row for label, each in able for row in _rows(label, each)]
    columns = ("method", "id", "on the front", "complexity", f"validation {run.measure.name}",
               "formula")  # fmt: skip
    final = (
        "re-scored on fresh seeds at the end of the search"
        if all(each.finished for _, each in able)
        else "as they stand, the search is not finished"
    )
    caption = (
        f"Validation {run.measure.name} against complexity (nodes of the structure): no loss found "
        f"is both simpler and better than a numbered one; numbered points are {final}, grey ones "
        f"are the single trainings of the search{_left_out([each for _, each in able])}."
    )
    return Picture(
        _NAME,
        _UNLEARNING if run.kind == KIND else _TITLE,
        caption,
        (Panel("Pareto front", partial(_draw, able), legend=2 * (len(able) > 1), height=3.4),),
        {_NAME: Table(columns, rows)},
        "".join(
            _list(label if len(able) > 1 else "", each, series(index))
            for index, (label, each) in enumerate(able)
        ),
    )


def _left_out(runs: Sequence[Run]) -> str:
    """What to say of a cloud of which not every point is drawn; several runs have none."""
    scored, drawn = len(_scored(runs[0])), len(_cloud(runs[0]))
    return f" ({drawn:,} of {scored:,} are drawn)" if len(runs) == 1 and drawn < scored else ""


def _rows(label: str, run: Run) -> list[tuple[object, ...]]:
    front = [
        (label, each.candidate.id, "yes", each.complexity, run.shown(each.error),
         to_text(each.expression, EXACT))
        for each in run.front
    ]  # fmt: skip
    others = [
        (label, each.id, "no", each.complexity, run.shown(each.error or 0.0), each.shown)
        for each in _scored(run)
    ]
    return [*front, *others]


def _scored(run: Run) -> list[Entry]:
    return [each for each in run.candidates if each.fate is Fate.SCORED]


def _cloud(run: Run) -> Sequence[Entry]:
    """The scored losses that are drawn: from all parts of the run alike."""
    return thinned(_scored(run), _POINTS)


def _list(label: str, run: Run, colour: str) -> str:
    items = "".join(
        f'<li value="{number}"><span class="facts">complexity {each.complexity}, '
        f"{html.escape(run.measure.name)} {run.measure.shown(each.error)}</span>"
        f"{formula(each.expression)}</li>"
        for number, each in enumerate(run.front, start=1)
    )
    title = f"<h4>{html.escape(label)}</h4>" if label else ""
    return f'{title}<ol class="front" style="--mark: {variable(colour)}">{items}</ol>'


def _draw(runs: Sequence[tuple[str, Run]], axes: Axes) -> None:
    cloud: list[float] = []
    fronts: list[float] = []
    for index, (label, run) in enumerate(runs):
        if len(runs) == 1:
            scored = _cloud(run)
            cloud = [run.shown(each.error or 0.0) for each in scored]
            axes.plot([each.complexity for each in scored], cloud, "o", color=MUTED,
                      alpha=0.35, markersize=3.5, markeredgewidth=0)  # fmt: skip
        x = [each.complexity for each in run.front]
        y = [run.shown(each.error) for each in run.front]
        fronts += y
        axes.step([*x, x[-1] + 2], [*y, y[-1]], where="post", color=series(index), linewidth=1.4)
        axes.plot(x, y, "o", color=series(index), markersize=11, markeredgecolor=PAPER, label=label)
        for number, point in enumerate(zip(x, y, strict=True), start=1):
            axes.annotate(str(number), point, ha="center", va="center_baseline", color=PAPER,
                          fontsize=8, fontweight="bold")  # fmt: skip
    axes.set_ylim(*limits(cloud, keep=fronts))
    axes.set_xlabel("complexity")
    axes.set_ylabel(f"validation {runs[0][1].measure.name}", color=INK)
