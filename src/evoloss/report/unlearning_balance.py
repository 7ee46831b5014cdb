"""Picture 8 of unlearning runs: what is forgotten against what is kept, for every scored loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.report.palette import FOUND, INK, MUTED, USUAL, series
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run, bare
from evoloss.store.entry import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "08-balance"
_TITLE = "Forgetting against utility"
_KEPT, _GONE = "utility_kept", "forgetting"
_LEVELS = (0.5, 0.7, 0.8, 0.9)
Points = list[tuple[float, float]]


def picture(groups: Sequence[Group]) -> Picture:
    """One run: found and known losses apart; several: by method."""
    able = [(group, _scored(group.runs)) for group in groups]
    able = [(group, found) for group, found in able if found]
    if not able:
        return Picture(_NAME, _TITLE, "No loss has been scored on both sets yet.")
    alone = len(able) == 1
    clouds = _by_origin(able[0][1]) if alone else _by_method(able)
    best = _best(able[0][0].best) if alone else None
    rows = [
        (group.label, run.settings["seed"], each.id, each.operator, each.details["metrics"][_GONE],
         each.details["metrics"][_KEPT], each.shown)
        for group, found in able
        for run, each in found
    ]  # fmt: skip
    columns = ("method", "seed", "id", "operator", "forgotten", "kept", "formula")
    caption = (
        "The share of the original model’s knowledge of the forget set that is gone, against the "
        "share of its utility that is kept, on the search part of the data; one point a loss that "
        "was trained to its end. Dotted lines join points of equal balance, the harmonic mean."
    )
    panels = (
        Panel("All scored losses", partial(_draw, clouds, best, 0.0), legend=3, height=3.6),
        Panel("Its upper right", partial(_draw, clouds, best, _corner(clouds)), 3, height=3.6),
    )
    return Picture(_NAME, _TITLE, caption, panels, {_NAME: Table(columns, rows)})


def _scored(runs: Sequence[Run]) -> list[tuple[Run, Entry]]:
    """The candidates that were measured on both sets."""
    return [
        (run, each)
        for run in runs
        for each in run.candidates
        if each.fate is Fate.SCORED and {_KEPT, _GONE} <= set(each.details.get("metrics", ()))
    ]


def _point(candidate: Candidate | Entry) -> tuple[float, float]:
    metrics = candidate.details["metrics"]
    return metrics[_KEPT], metrics[_GONE]


def _by_origin(found: Sequence[tuple[Run, Entry]]) -> list[tuple[str, str, Points]]:
    clouds: dict[str, Points] = {"proposed": [], "known": []}
    for _, each in found:
        given = bare(each.operator) in ("usual loss", "known loss")
        clouds["known" if given else "proposed"].append(_point(each))
    colours = {"proposed": FOUND, "known": USUAL}
    return [(name, colours[name], points) for name, points in clouds.items() if points]


def _by_method(
    able: Sequence[tuple[Group, list[tuple[Run, Entry]]]],
) -> list[tuple[str, str, Points]]:
    return [
        (group.label, series(index), [_point(each) for _, each in found])
        for index, (group, found) in enumerate(able)
    ]


def _best(run: Run | None) -> tuple[float, float] | None:
    best = None if run is None or run.best is None else run.best.candidate
    known = best is not None and {_KEPT, _GONE} <= set(best.details.get("metrics", ()))
    return _point(best) if best is not None and known else None


def _corner(clouds: Sequence[tuple[str, str, Points]]) -> float:
    """Where on either axis the better half of the losses begins."""
    worse = [min(point) for _, _, points in clouds for point in points]
    return max(0.0, min(0.9, float(np.median(worse))) - 0.05)


def _draw(
    clouds: Sequence[tuple[str, str, Points]], best: tuple[float, float] | None,
    origin: float, axes: Axes,
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
    if best is not None:
        axes.plot(*best, "o", color="none", markeredgecolor=INK, markersize=10,
                  markeredgewidth=1.4, label="best")  # fmt: skip
    margin = 0.04 * (1.0 - origin)
    axes.set_xlim(origin - margin, 1.0 + margin)
    axes.set_ylim(origin - margin, 1.0 + margin)
    axes.locator_params(nbins=5)
    axes.set_xlabel("utility kept")
    axes.set_ylabel("forgotten")
