"""Picture 7 of unlearning runs: how the balance grew while adapters trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from evoloss.discovery.candidate import Fate
from evoloss.report.limits import limits
from evoloss.report.palette import FOUND, MUTED, USUAL
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Run, bare, ranked
from evoloss.report.stretches import thinned
from evoloss.store.entry import Entry
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "07-learning-curves"
_TITLE = "Learning curves"
_BEST = 5
_DRAWN = 1000  # curves behind the best
Curve = list[tuple[float, float]]


def picture(run: Run | None) -> Picture:
    """The best candidates and the known losses among all others."""
    if run is None:
        return Picture(NAME, _TITLE, "No loss has been scored yet.")
    curves = {each.id: curve(each) for each in run.candidates}
    curves = {id: each for id, each in curves.items() if len(each) > 1}
    if not curves:
        return Picture(NAME, _TITLE, "No training has been measured on its way.")
    best = [each for each in ranked(run.candidates) if each.id in curves][:_BEST]
    given = [
        each for each in run.candidates
        if each.id in curves and bare(each.operator) in ("usual loss", "known loss")
    ]  # fmt: skip
    rows = [
        (id, run.candidates[id].operator, run.candidates[id].fate.value, step, value)
        for id, points in curves.items()
        for step, value in points
    ]
    out = sum(run.candidates[id].fate is Fate.RACED_OUT for id in curves)
    caption = (
        "Balance (of what is forgotten and what is kept, on the search part of the data) over the "
        "training steps of an adapter, measured where the worse half drops out and at the end; 0 "
        f"before the first step. {counted(len(curves), 'candidate')}, {out} of them raced out."
    )
    panels = (
        Panel(f"The best {len(best)}", partial(_draw, curves, best, FOUND, "best"), legend=2),
        Panel("The known losses", partial(_draw, curves, given, USUAL, "known"), legend=2),
    )
    table = Table(("id", "operator", "fate", "step", "balance"), rows)
    return Picture(NAME, _TITLE, caption, panels[: 1 + bool(given)], {NAME: table})


def curve(candidate: Entry) -> Curve:
    """(step, balance) from the first step on: an untouched model has forgotten nothing."""
    return [(0.0, 0.0), *((step, value) for step, value in candidate.details.get("curve", ()))]


def _draw(
    curves: dict[int, Curve], chosen: Sequence[Entry], colour: str, name: str, axes: Axes
) -> None:
    for points in thinned(list(curves.values()), _DRAWN):
        axes.plot(*zip(*points, strict=True), color=MUTED, linewidth=0.7, alpha=0.35)
    for index, each in enumerate(chosen):
        axes.plot(*zip(*curves[each.id], strict=True), "o-", color=colour, linewidth=1.5,
                  markersize=3, label=name if index == 0 else None)  # fmt: skip
    axes.plot([], [], color=MUTED, linewidth=0.7, label="all")
    ends = [value for points in curves.values() for _, value in points[1:]]
    axes.set_ylim(*limits(ends, [0.0]))
    axes.set_xlabel("training steps")
    axes.set_ylabel("balance")
