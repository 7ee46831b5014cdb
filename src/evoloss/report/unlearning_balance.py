"""Picture 8 of unlearning runs: what is forgotten against what is kept, for every scored loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evoloss.discovery import trade_off
from evoloss.discovery.trade_off import Point
from evoloss.report.mathematics import formula
from evoloss.report.palette import FOUND, INK, MUTED, PAPER, USUAL, series, variable
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run, bare, best_of
from evoloss.store.entry import Entry
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "08-balance"
_TITLE = "Forgetting against utility"
_LEVELS = (0.5, 0.7, 0.8, 0.9)
Points = list[tuple[float, float]]
Scored = tuple[Run, Entry, Point]


def picture(groups: Sequence[Group]) -> Picture:
    """One run: found and known losses apart; several: by method. The front is the best run's."""
    able = [(group, _scored(group.runs)) for group in groups]
    able = [(group, found) for group, found in able if found]
    if not able:
        return Picture(_NAME, _TITLE, "No loss has been scored on both sets yet.")
    alone = len(able) == 1
    clouds = _by_origin(able[0][1]) if alone else _by_method(able)
    best = best_of([run for group, _ in able for run in group.runs])
    front = [] if best is None else trade_off.front(best.candidates, _epochs(best))
    numbered = {each.id for each, _ in front}
    rows = [
        (group.label, run.settings["seed"], each.id, each.operator, point.forgotten, point.kept,
         point.epochs, "yes" if run is best and each.id in numbered else "no", each.shown)
        for group, found in able
        for run, each, point in found
    ]  # fmt: skip
    columns = ("method", "seed", "id", "operator", "forgotten", "kept", "epochs", "on the front",
               "formula")  # fmt: skip
    whose = "" if alone or best is None else f" of the best run ({best.settings['method']})"
    caption = (
        "The share of the original model’s knowledge of the forget set that is gone, against the "
        "share of its utility that is kept, on the search part of the data; one point a loss that "
        "was trained to its end. Dotted lines join points of equal balance, the harmonic mean. No "
        f"loss{whose} forgets and keeps as much as a numbered one in as few epochs."
    )
    marks = [point for _, point in front]
    panels = (
        Panel("All scored losses", partial(_draw, clouds, marks, 0.0), legend=3, height=3.6),
        Panel("Its upper right", partial(_draw, clouds, marks, _corner(clouds)), 3, height=3.6),
    )
    return Picture(_NAME, _TITLE, caption, panels, {_NAME: Table(columns, rows)}, _list(front))


def _epochs(run: Run) -> int:
    return int(run.settings["epochs"])


def _scored(runs: Sequence[Run]) -> list[Scored]:
    """The candidates that were measured on both sets."""
    found = [
        (run, each, trade_off.point(each, _epochs(run))) for run in runs for each in run.candidates
    ]
    return [(run, each, point) for run, each, point in found if point is not None]


def _list(front: Sequence[tuple[Entry, Point]]) -> str:
    items = "".join(
        f'<li value="{number}"><span class="facts">forgotten {point.forgotten:.3g}, kept '
        f"{point.kept:.3g}, {counted(point.epochs, 'epoch')}</span>{formula(each.loss)}</li>"
        for number, (each, point) in enumerate(front, start=1)
    )
    return f'<ol class="front" style="--mark: {variable(INK)}">{items}</ol>'


def _place(point: Point) -> tuple[float, float]:
    return point.kept, point.forgotten


def _by_origin(found: Sequence[Scored]) -> list[tuple[str, str, Points]]:
    clouds: dict[str, Points] = {"proposed": [], "known": []}
    for _, each, point in found:
        given = bare(each.operator) in ("usual loss", "known loss")
        clouds["known" if given else "proposed"].append(_place(point))
    colours = {"proposed": FOUND, "known": USUAL}
    return [(name, colours[name], points) for name, points in clouds.items() if points]


def _by_method(able: Sequence[tuple[Group, list[Scored]]]) -> list[tuple[str, str, Points]]:
    return [
        (group.label, series(index), [_place(point) for _, _, point in found])
        for index, (group, found) in enumerate(able)
    ]


def _corner(clouds: Sequence[tuple[str, str, Points]]) -> float:
    """Where on either axis the better half of the losses begins."""
    worse = [min(point) for _, _, points in clouds for point in points]
    return max(0.0, min(0.9, float(np.median(worse))) - 0.05)


def _draw(
    clouds: Sequence[tuple[str, str, Points]], front: Sequence[Point], origin: float, axes: Axes,
) -> None:  # fmt: skip
    kept = np.linspace(0.01, 1.0, 400)
    for level in _LEVELS:
        able = kept > level / (2.0 - level)  # elsewhere more than all would have to be forgotten
        gone = level * kept[able] / (2.0 * kept[able] - level)
        axes.plot(kept[able], gone, color=MUTED, linewidth=0.8, linestyle=(0, (1, 1.5)))
        if level > origin:
            axes.annotate(f"{level:g}", (level, level), (2, 2), textcoords="offset points",
                          fontsize=8, color=MUTED)  # fmt: skip
    for index, (name, colour, points) in enumerate(clouds):
        axes.plot(*zip(*points, strict=True), "oDs^vPX"[index % 7], color=colour, markersize=4.5,
                  alpha=0.7, markeredgewidth=0, linestyle="none", label=name)  # fmt: skip
    for number, point in enumerate(front, start=1):
        if min(point.kept, point.forgotten) < origin:
            continue
        axes.plot(*_place(point), "o", color=INK, markersize=11, markeredgecolor=PAPER)
        axes.annotate(str(number), _place(point), ha="center", va="center_baseline", color=PAPER,
                      fontsize=8, fontweight="bold")  # fmt: skip
    margin = 0.04 * (1.0 - origin)
    axes.set_xlim(origin - margin, 1.0 + margin)
    axes.set_ylim(origin - margin, 1.0 + margin)
    axes.locator_params(nbins=5)
    axes.set_xlabel("utility kept")
    axes.set_ylabel("forgotten")
