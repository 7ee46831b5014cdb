"""Picture 7: learning curves of the base network under the found and the usual loss."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.report.limits import limits
from evoloss.report.measurements import Measurements
from evoloss.report.palette import FOUND, INK, MUTED, USUAL
from evoloss.report.picture import Panel, Picture, Table
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

NAME = "07-learning-curves"
TITLE = "Learning curves"
LABELS = ("found", "usual")
COLOURS = (FOUND, USUAL)
DASHES = ("solid", (0, (6, 2)))


def picture(measured: Measurements) -> Picture:
    """Held-out error over training steps, and the difference seed by seed."""
    metric, curves = measured.bench.task.metric, measured.curves
    sign = metric.shown(1.0)
    shown = sign * curves.errors
    rows = [
        (label, seed, int(step), float(score))
        for label, own in zip(LABELS, shown, strict=True)
        for seed, line in enumerate(own)
        for step, score in zip(curves.steps, line, strict=True)
    ]
    table = Table(("loss", "seed", "step", f"validation {metric.name}"), rows)
    name = f"validation {metric.name}"
    panels = (
        Panel("Found and usual", partial(_draw, curves.steps, shown, name), legend=2),
        Panel("Found minus usual", partial(_draw_difference, curves.steps, shown, name)),
    )
    caption = (
        f"Validation {metric.name} of the base network ({measured.bench.task.network_name}) as it "
        f"trains: mean and range of {setting(measured)} that the search has not used"
        f"{' (small data: other splits, too)' if measured.resplit else ''}; at the right the "
        "difference of each seed, their mean, and its 95 % interval."
    )
    return Picture(NAME, TITLE, caption, panels, {NAME: table})


def setting(measured: Measurements) -> str:
    """Seeds and steps, and whether they were cut for a network that is slow to train."""
    plan = measured.plan
    episodes = f" × {measured.episodes} episodes" if measured.episodes > 1 else ""
    cut = f" (of {plan.full}: this network is slow to train)" if plan.steps < plan.full else ""
    seeds, steps = counted(plan.seeds, "seed"), counted(plan.steps, "step")
    return f"{seeds}{episodes}, {steps}{cut}, initialisations and minibatches"


def _draw(steps: NDArray[np.int64], shown: Array, name: str, axes: Axes) -> None:
    for own, label, colour, dashes in zip(shown, LABELS, COLOURS, DASHES, strict=True):
        axes.plot(steps, own.mean(0), color=colour, linestyle=dashes, label=label)
        axes.fill_between(steps, own.min(0), own.max(0), color=colour, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_ylim(*limits(shown, keep=shown[:, :, -1]))
    _label(axes, name)


def _draw_difference(steps: NDArray[np.int64], shown: Array, name: str, axes: Axes) -> None:
    difference = shown[0] - shown[1]
    axes.axhline(0.0, color=MUTED, linewidth=1)
    if len(difference) > 2:
        from scipy.stats import t

        error = difference.std(0, ddof=1) / np.sqrt(len(difference))
        reach = t.ppf(0.975, len(difference) - 1) * error
        mean = difference.mean(0)
        axes.fill_between(steps, mean - reach, mean + reach, color=FOUND, alpha=0.18, linewidth=0)
    for line in difference:
        axes.plot(steps, line, color=FOUND, linewidth=0.7, alpha=0.5)
    axes.plot(steps, difference.mean(0), color=INK)
    axes.set_xscale("log")
    _label(axes, f"difference in {name}")


def _label(axes: Axes, name: str) -> None:
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlabel("training step")
    axes.set_ylabel(name)
