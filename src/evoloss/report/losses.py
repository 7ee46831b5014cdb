"""Picture 1: the found losses as formulas, and as curves against the usual loss."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.lang.evaluate import numpy_gradient, numpy_value
from evoloss.lang.expr import Expr
from evoloss.lang.text import EXACT, to_text
from evoloss.report.limits import limits
from evoloss.report.mathematics import formula
from evoloss.report.palette import USUAL, series
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run, labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NAME = "01-losses"
_POINTS = 241
_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class _Curve:
    """One loss at one target. x, value, slope: (N,), scaled and shifted for comparison."""

    label: str
    colour: str
    target: float
    x: Array
    value: Array
    slope: Array


@dataclass(frozen=True)
class Axis:
    """Where losses are drawn: over the prediction of a class, or over the residual.

    targets: the y of the curves; x: (N,); prediction: the f of an x at a target.
    """

    label: str
    targets: tuple[float, ...]
    x: Array
    prediction: Callable[[float], Array]


def over_prediction() -> Axis:
    """For classification: the right class and a wrong one."""
    f = np.linspace(0.004, 0.996, _POINTS)
    return Axis("prediction f", (1.0, 0.0), f, lambda y: f)


def over_residual(targets: Sequence[float]) -> Axis:
    """For regression: the residual at some typical targets."""
    reach = max(max(targets) - min(targets), 1.0)
    residual = np.linspace(-reach, reach, _POINTS)
    return Axis("residual f − y", tuple(targets), residual, lambda y: y + residual)


def picture(groups: Sequence[Group], targets: Sequence[float]) -> Picture:
    """targets: for regression, those at which the losses are drawn."""
    able = labelled(groups)
    losses = [(label, run.best.expression) for label, run in able if run.best]
    if not losses:
        return Picture(_NAME, "The found loss", "No loss has been scored yet.")
    run = able[0][1]
    classification = run.output != "identity"
    # With several losses, one target each: more curves could not be told apart.
    typical = targets if len(losses) == 1 else [sorted(targets)[len(targets) // 2]]
    axis = over_prediction() if classification else over_residual(typical)
    curves = _curves(losses, run.usual, axis)
    texts = [
        ("usual", to_text(run.usual, EXACT)),
        *((label, to_text(expr, EXACT)) for label, expr in losses),
    ]
    return Picture(
        _NAME,
        "The found loss" if len(losses) == 1 else "The found losses",
        _caption(classification, axis.targets),
        _by_target(curves, axis) if classification else _by_loss(curves, axis),
        {_NAME: _table(curves, axis), f"{_NAME}-formulas": Table(("loss", "formula"), texts)},
        "".join(_entry(label, each) for label, each in able)
        + f'<div class="loss"><h4>usual</h4>{formula(run.usual)}</div>',
    )


def _caption(classification: bool, targets: Sequence[float]) -> str:
    where = (
        "of one output, for the right class (y = 1) and for a wrong one (y = 0)"
        if classification
        else f"against the residual, at y = {', '.join(map(_number, targets))}"
    )
    return (
        f"Value and gradient {where}; a found loss is scaled to the usual one’s mean gradient, "
        "for a factor is only a learning rate, and each curve is shifted to a minimum of 0."
    )


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")


def _entry(label: str, run: Run) -> str:
    if run.best is None:
        return ""
    shown = run.measure.shown(run.best.error)
    title = f"{label}: validation {run.measure.name} {shown}, complexity {run.best.complexity}"
    return f'<div class="loss"><h4>{html.escape(title)}</h4>{formula(run.best.expression)}</div>'


def _curves(losses: Sequence[tuple[str, Expr]], usual: Expr, axis: Axis) -> list[_Curve]:
    aim = _mean_slope(usual, axis)
    found = []
    for index, (label, expr) in enumerate([*losses, ("usual", usual)]):
        mean = _mean_slope(expr, axis)
        factor = aim / mean if mean > 0 and aim > 0 else 1.0
        colour = USUAL if index == len(losses) else series(index)
        for y in axis.targets:
            value, slope = _values(expr, axis, y)
            shifted = factor * (value - np.nanmin(value, initial=np.inf, where=np.isfinite(value)))
            found.append(_Curve(label, colour, y, axis.x, shifted, factor * slope))
    return found


def _values(expr: Expr, axis: Axis, y: float) -> tuple[Array, Array]:
    f = axis.prediction(y)
    point = {"y": np.full_like(f, y), "f": f}
    value = np.broadcast_to(numpy_value(expr, point), f.shape)
    return value, np.asarray(numpy_gradient(expr, point, "f"))


def _mean_slope(expr: Expr, axis: Axis) -> float:
    """Mean magnitude of the gradient over the middle of the axis, away from poles."""
    middle = slice(_POINTS // 20, -(_POINTS // 20))
    slopes = np.concatenate([np.abs(_values(expr, axis, y)[1][middle]) for y in axis.targets])
    finite = slopes[np.isfinite(slopes)]
    return float(finite.mean()) if len(finite) else 0.0


def _by_target(curves: Sequence[_Curve], axis: Axis) -> tuple[Panel, ...]:
    """Classification: a panel for each target, found and usual in each."""
    panels = []
    for y in axis.targets:
        chosen = [(each, each.label) for each in curves if each.target == y]
        for what in ("value", "slope"):
            title = f"{'Loss' if what == 'value' else 'Gradient ∂ℓ/∂f'} for y = {y:g}"
            panels.append(Panel(title, partial(_draw, chosen, what, axis.label), legend=2))
    return tuple(panels)


def _by_loss(curves: Sequence[_Curve], axis: Axis) -> tuple[Panel, ...]:
    """Regression: all targets in one panel, told apart by their dashes."""
    several = len(axis.targets) > 1
    chosen = [
        (each, f"{each.label}, y = {_number(each.target)}" if several else each.label)
        for each in curves
        if each.label != "usual" or each.target == axis.targets[0]
    ]
    named = [(each, "usual" if each.label == "usual" else name) for each, name in chosen]
    return (
        Panel("Loss", partial(_draw, named, "value", axis.label), legend=2),
        Panel("Gradient ∂ℓ/∂f", partial(_draw, named, "slope", axis.label), legend=2),
    )


def _draw(curves: Sequence[tuple[_Curve, str]], what: str, label: str, axes: Axes) -> None:
    drawn = []
    seen: dict[str, int] = {}
    for curve, name in curves:
        y = getattr(curve, what)
        dashes = (0, (6, 2)) if curve.label == "usual" else _DASHES[seen.get(curve.label, 0) % 3]
        seen[curve.label] = seen.get(curve.label, 0) + 1
        axes.plot(curve.x, y, color=curve.colour, linestyle=dashes, label=name)
        drawn.append(y)
    axes.set_ylim(*limits(np.concatenate(drawn)))
    axes.set_xlabel(label)


def _table(curves: Sequence[_Curve], axis: Axis) -> Table:
    rows = [
        (each.label, each.target, float(x), float(value), float(slope))
        for each in curves
        for x, value, slope in zip(each.x, each.value, each.slope, strict=True)
    ]
    return Table(("loss", "y", axis.label, "value", "gradient"), rows)
