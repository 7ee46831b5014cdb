"""Picture 9: sensitivity to the learning rate, and what the loss does to confidence."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.report import confidence
from evoloss.report.curves import COLOURS, DASHES, LABELS
from evoloss.report.limits import limits
from evoloss.report.measurements import Measurements
from evoloss.report.palette import FOUND, INK, MUTED
from evoloss.report.picture import Panel, Picture, Table
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

NAME = "09-sensitivity"
TITLE = "Learning rate and confidence"


def picture(measured: Measurements) -> Picture:
    """The sweep for every task; confidence where predictions are probabilities."""
    plan, task = measured.plan, measured.bench.task
    shown = task.metric.shown(1.0) * measured.sweep
    rates = task.training.lr * np.array(plan.factors)
    name = f"validation {task.metric.name}"
    rows = [
        (label, float(rate), seed, float(score))
        for rate, by_loss in zip(rates, shown, strict=True)
        for label, own in zip(LABELS, by_loss, strict=True)
        for seed, score in enumerate(own)
    ]
    seeds = counted(plan.sweep_seeds, "seed")
    gap = "; where a line breaks off, a training ended in NaN" if np.isnan(shown).any() else ""
    caption = (
        f"Validation {task.metric.name} after {counted(plan.steps, 'step')} over the learning "
        f"rate: mean and range of {seeds}, the dotted line is the task’s own rate{gap}."
    )
    own = task.training.lr
    panels = [Panel("Learning rate", partial(_draw, rates, shown, own, name), 2)]
    tables = {f"{NAME}-learning-rate": Table(("loss", "learning rate", "seed", name), rows)}
    title = "Sensitivity to the learning rate"
    if task.output == "identity":
        difference = shown[:, 0] - shown[:, 1]
        draw = partial(_draw_difference, rates, difference, own, f"difference in {name}")
        panels.append(Panel("Found minus usual, seed by seed", draw))
    else:
        title = TITLE
        more = confidence.study(measured)
        panels += more.panels
        tables |= {f"{NAME}-{key}": table for key, table in more.tables.items()}
        caption += f" {more.caption}"
    return Picture(NAME, title, caption, tuple(panels), tables)


def _draw(rates: Array, shown: Array, own_rate: float, name: str, axes: Axes) -> None:
    axes.axvline(own_rate, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)))
    for index, (label, colour, dashes) in enumerate(zip(LABELS, COLOURS, DASHES, strict=True)):
        own = shown[:, index]
        axes.plot(rates, own.mean(1), "o", color=colour, linestyle=dashes, markersize=3.5,
                  label=label)  # fmt: skip
        axes.fill_between(rates, own.min(1), own.max(1), color=colour, alpha=0.18, linewidth=0)
    _label(rates, shown, axes)
    axes.set_ylabel(name)


def _draw_difference(
    rates: Array, difference: Array, own_rate: float, name: str, axes: Axes
) -> None:
    axes.axvline(own_rate, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)))
    axes.axhline(0.0, color=MUTED, linewidth=1)
    axes.plot(rates, difference, color=FOUND, linewidth=0.7, alpha=0.5)
    axes.plot(rates, difference.mean(1), "o-", color=INK, markersize=3.5)
    _label(rates, difference, axes)
    axes.set_ylabel(name)


def _label(rates: Array, shown: Array, axes: Axes) -> None:
    """The axis of learning rates; the other one shows what did not diverge."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates[:: max(1, len(rates) // 4)])
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:.2g}")
    axes.set_xlabel("learning rate")
    axes.set_ylim(*limits(shown))
