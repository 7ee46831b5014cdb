"""Picture 1 of unlearning runs: the found losses as formulas, and what they push and pull."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.lang import zoo
from evoloss.lang.expr import Expr, inputs_of
from evoloss.lang.gradient import value_and_gradients
from evoloss.lang.text import EXACT, to_text
from evoloss.report.limits import limits
from evoloss.report.mathematics import BATCH_SYMBOLS, formula
from evoloss.report.palette import MUTED, SERIES, USUAL, series
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run, labelled
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NAME = "01-losses"
SIDES = ("forget", "retain")
ROWS = 8
"""Sequences of each set in the batch that gradients are taken on."""
POINTS = np.linspace(-6.0, -0.02, 120)
_KNOWN_ANSWER = 0.9
"""The mean probability of an answer before unlearning, where no evaluation tells it."""


@dataclass(frozen=True)
class _Curve:
    """The gradients of one loss. slopes: by set, (N,) each, scaled for comparison."""

    label: str
    colour: str
    found: bool
    slopes: dict[str, Array]


def picture(groups: Sequence[Group]) -> Picture:
    """One found loss against all known ones, or those of several methods against the usual one."""
    able = labelled(groups)
    losses = [(label, run.best.expression) for label, run in able if run.best]
    if not losses:
        return Picture(_NAME, "The found loss", "No loss has been scored yet.")
    run = able[0][1]
    rivals = known(run) if len(groups) == 1 else {"usual": run.usual}
    before = probabilities(run)
    curves = _curves(losses, rivals, run.usual, before)
    formulas = [(name, to_text(expr, EXACT)) for name, expr in (*losses, *rivals.items())]
    items = "".join(_entry(label, each) for label, each in able)
    others = "".join(
        f'<div class="loss"><h4>{html.escape(name)}</h4>{formula(expr)}</div>'
        for name, expr in rivals.items()
    )
    panels = tuple(
        Panel(f"∂L/∂ℓ of a sequence to {side}", partial(_draw, curves, side), legend=2)
        for side in SIDES
        if any(each.slopes[side].any() for each in curves)
    )
    return Picture(
        _NAME,
        "The found loss" if len(losses) == 1 else "The found losses",
        _caption(before),
        panels,
        {_NAME: _table(curves), f"{_NAME}-formulas": Table(("loss", "formula"), formulas)},
        f"{items}<details><summary>known losses</summary>{others}</details>",
    )


def known(run: Run) -> dict[str, Expr]:
    """The hand-written losses that the run's data allow, but gradient ascent beside grad-diff."""
    retain = "log_probs_retain" in inputs_of(run.usual)
    every = zoo.unlearning_losses(retain)
    return {name: zoo.loss_among(every, name) for name in every if not (retain and name == "ga")}


def probabilities(run: Run) -> dict[str, float]:
    """The mean probability of an answer of each set before unlearning."""
    records = [each for each in run.evaluations if each.get("kind") == run.kind]
    values = records[-1]["models"].get("before", {}) if records else {}
    found = {side: values.get(f"{side}_prob", _KNOWN_ANSWER) for side in SIDES}
    return {side: min(max(value, 1e-4), 0.999) for side, value in found.items()}


def slopes(loss: Expr, side: str, before: dict[str, float]) -> Array:
    """(N,) the gradient in the log-probability of one sequence, over `POINTS`.

    All other sequences are as before unlearning. Times the number of sequences, so that a mean over
    the batch does not depend on it.
    """
    start = {each: math.log(before[each]) for each in SIDES}
    batch: dict[str, Array] = {}
    for each in SIDES:
        batch[f"log_probs_{each}"] = np.full(ROWS, start[each])
        batch[f"ref_log_probs_{each}"] = np.full(ROWS, start[each])
        batch[f"mask_{each}"] = np.ones(ROWS)
    name = f"log_probs_{side}"
    found = []
    for point in POINTS:
        moved = np.concatenate([[point], batch[name][1:]])
        _, gradients = value_and_gradients(loss, {**batch, name: moved}, [name])
        found.append(ROWS * gradients[name][0])
    return np.array(found)


def _curves(
    losses: Sequence[tuple[str, Expr]], rivals: dict[str, Expr], usual: Expr,
    before: dict[str, float],
) -> list[_Curve]:  # fmt: skip
    colours = iter(SERIES[1:])
    found = [
        _curve(label, series(index), True, loss, before)
        for index, (label, loss) in enumerate(losses)
    ]
    for name, loss in rivals.items():
        colour = USUAL if loss == usual else next(colours, MUTED)
        found.append(_curve(name, colour, False, loss, before))
    return found


def _curve(label: str, colour: str, found: bool, loss: Expr, before: dict[str, float]) -> _Curve:
    """Scaled to a mean slope of 1, over both sets: Adam takes no notice of a factor."""
    own = {side: slopes(loss, side, before) for side in SIDES}
    every = np.abs(np.concatenate([each for each in own.values() if each.any()] or [np.ones(1)]))
    factor = 1.0 / (every[np.isfinite(every)].mean() or 1.0)
    return _Curve(label, colour, found, {side: factor * each for side, each in own.items()})


def _caption(before: dict[str, float]) -> str:
    chances = " and ".join(f"{before[side]:.2g} ({side})" for side in SIDES)
    return (
        f"{BATCH_SYMBOLS}. Below, the gradient of one sequence over its log-probability, all "
        f"others as before unlearning (mean probability of an answer {chances}): above 0 the loss "
        "pushes it down, below 0 it pulls it up. Each loss is scaled to a mean slope of 1, for "
        "Adam takes no notice of a factor; what counts is the shape, and one set against the other."
    )


def _entry(label: str, run: Run) -> str:
    best = run.best
    if best is None:
        return ""
    words = [
        f"{label}: validation {run.measure.name} {run.measure.shown(best.error)}",
        f"complexity {best.complexity}",
    ]
    if best.candidate.epochs is not None:
        words.append(counted(best.candidate.epochs, "epoch"))
    if best.lr is not None:
        words.append(f"learning rate {best.lr:.2g}")
    title = html.escape(", ".join(words))
    return f'<div class="loss"><h4>{title}</h4>{formula(best.expression)}</div>'


def _draw(curves: Sequence[_Curve], side: str, axes: Axes) -> None:
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for index, each in enumerate(curves):
        slope = each.slopes[side]
        dashes = "solid" if each.found else ((0, (6, 2)), (0, (3, 1.5)))[index % 2]
        axes.plot(POINTS, slope, color=each.colour, linestyle=dashes,
                  linewidth=2.4 if each.found else 1.2, zorder=3 - 0.1 * index,
                  label=each.label)  # fmt: skip
    axes.set_ylim(*limits(np.concatenate([each.slopes[side] for each in curves]), [0.0]))
    axes.set_xlabel("log-probability ℓ of the answer, per token")


def _table(curves: Sequence[_Curve]) -> Table:
    rows = [
        (each.label, side, float(x), float(slope))
        for each in curves
        for side in SIDES
        for x, slope in zip(POINTS, each.slopes[side], strict=True)
    ]
    return Table(("loss", "set", "log-probability", "gradient"), rows)
