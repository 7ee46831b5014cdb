"""What a classification loss does to confidence: implicit label smoothing and calibration.

The expected calibration error is that of Guo, Pleiss, Sun and Weinberger 2017, with 15 bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Expr
from evoloss.lang.types import Output
from evoloss.report.curves import COLOURS, DASHES, LABELS
from evoloss.report.measurements import Measurements
from evoloss.report.palette import MUTED
from evoloss.report.picture import Panel, Table
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

BINS = 15
_SURE = 0.9995  # a loss that is lowest from here on asks for full confidence
_POINTS = np.concatenate([np.linspace(0.02, 0.98, 193), 1 - np.geomspace(0.0195, 1e-5, 60)])


@dataclass(frozen=True)
class Study:
    """The part of a picture that is about confidence."""

    caption: str
    panels: tuple[Panel, ...]
    tables: Mapping[str, Table]


def study(measured: Measurements) -> Study:
    """Of the networks at the end of the learning curves, on validation data, seeds pooled."""
    task = measured.bench.task
    classes = measured.trial(0).train.y.shape[1]
    values = [sought(loss, task.output, classes) for loss in measured.losses]
    aims = [aim(value) for value in values]
    guess = 1.0 / classes if task.output == "softmax" else 0.5
    pooled = [_pooled(measured, index) for index in range(len(measured.losses))]
    bins = [reliability(*each) for each in pooled]
    errors = [calibration_error(*each) for each in pooled]
    plan = measured.plan
    setting = f"{counted(plan.seeds, 'seed')} pooled, {counted(plan.steps, 'step')}"
    caption = (
        f"Confidence: the found loss is lowest {_words(aims[0], classes)}, the usual one "
        f"{_words(aims[1], classes)}; on validation data ({setting}) the expected calibration "
        f"error is {errors[0]:.3g} with the found loss and {errors[1]:.3g} with the usual one "
        f"(mean confidence {pooled[0][0].mean():.3f} and {pooled[1][0].mean():.3f})."
    )
    panels = (
        Panel("Confidence the loss asks for", partial(_draw_sought, values, aims, guess), 2),
        Panel("Calibration", partial(_draw_reliability, bins), 2),
        Panel("Confidence of the networks", partial(_draw_confidences, pooled), 2),
    )
    return Study(caption, panels, _tables(values, bins))


def sought(loss: Expr, output: Output, classes: int) -> Array:
    """The loss of one row over the probability of its right class, `_POINTS`.

    With softmax the other classes share what is left; with sigmoid each output stands alone, and
    one right and one wrong output are at the same distance from their targets.
    """
    others = classes - 1 if output == "softmax" else 1
    p = _POINTS
    right = numpy_value(loss, {"y": np.ones_like(p), "f": p})
    wrong = numpy_value(loss, {"y": np.zeros_like(p), "f": (1 - p) / others})
    return np.broadcast_to(right, p.shape) + others * np.broadcast_to(wrong, p.shape)


def aim(value: Array) -> float:
    """The confidence at which the loss is lowest."""
    finite = np.where(np.isfinite(value), value, np.inf)
    return float(_POINTS[int(finite.argmin())])


def smoothing(confidence: float, classes: int) -> float:
    """The ξ of label smoothing that asks for the same confidence, 1 − ξ + ξ / C."""
    return (1.0 - confidence) * classes / (classes - 1)


def _words(confidence: float, classes: int) -> str:
    if confidence >= _SURE:
        return "at full confidence"
    like = smoothing(confidence, max(classes, 2))
    return f"at a confidence of {confidence:.3f} (as label smoothing with ξ = {like:.2g})"


def _pooled(measured: Measurements, index: int) -> tuple[Array, Array]:
    """(N,) confidences in the predicted class, and whether it is the right one."""
    parts = []
    for seed, weights in enumerate(measured.curves.final):
        data = measured.trial(seed).held_out
        f = measured.predictions(weights[index][None], data.x)[0]
        parts.append(_predicted(f, data.y, measured.bench.task.output))
    sure, right = (torch.cat(each).double().cpu().numpy() for each in zip(*parts, strict=True))
    known = np.isfinite(sure)
    return sure[known], right[known]


def _predicted(f: Tensor, y: Tensor, output: Output) -> tuple[Tensor, Tensor]:
    if output == "softmax":
        sure, named = f.max(-1)
        return sure, named == y.argmax(-1)
    f, y = f.flatten(), y.flatten()  # one decision for each output
    return torch.maximum(f, 1 - f), (f > 0.5) == (y > 0.5)


def reliability(confidence: Array, right: Array, bins: int = BINS) -> Array:
    """(B, 3) mean confidence, accuracy and share of the predictions in each bin that has any."""
    if not len(confidence):
        return np.empty((0, 3))
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return np.array(
        [
            (confidence[number == n].mean(), right[number == n].mean(), (number == n).mean())
            for n in np.unique(number)
        ]
    )


def calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """The mean distance of accuracy from confidence, bins weighted by what is in them."""
    sure, accurate, share = reliability(confidence, right, bins).T
    return float((np.abs(sure - accurate) * share).sum())


def _tables(values: Sequence[Array], bins: Sequence[Array]) -> dict[str, Table]:
    curves = [
        (label, float(p), float(value))
        for label, own in zip(LABELS, values, strict=True)
        for p, value in zip(_POINTS, own, strict=True)
    ]
    rows = [
        (label, *map(float, row)) for label, own in zip(LABELS, bins, strict=True) for row in own
    ]
    return {
        "confidence": Table(("loss", "probability of the right class", "value"), curves),
        "calibration": Table(("loss", "confidence", "accuracy", "share"), rows),
    }


def _draw_sought(values: Sequence[Array], aims: Sequence[float], guess: float, axes: Axes) -> None:
    """Each loss from its lowest value, scaled to its fall from an even guess."""
    for value, at, label, colour, dashes in zip(values, aims, LABELS, COLOURS, DASHES, strict=True):
        known = value[np.isfinite(value) & (guess <= _POINTS)]
        fall = known[0] - known.min() if len(known) else 0.0
        scaled = (value - known.min(initial=np.inf)) / (fall or 1.0)
        axes.plot(_POINTS, scaled, color=colour, linestyle=dashes, label=label)
        axes.plot([at], [0.0], "v", color=colour, markersize=7, clip_on=False)
    axes.set_ylim(-0.08, 1.6)
    axes.set_xlabel("probability of the right class")
    axes.set_ylabel("loss (1 at an even guess)")


def _draw_reliability(bins: Sequence[Array], axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)))
    for own, label, colour, dashes in zip(bins, LABELS, COLOURS, DASHES, strict=True):
        axes.plot(own[:, 0], own[:, 1], "o", color=colour, linestyle=dashes, markersize=4,
                  label=label)  # fmt: skip
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")


def _draw_confidences(pooled: Sequence[tuple[Array, Array]], axes: Axes) -> None:
    edges = np.linspace(0.0, 1.0, BINS + 1)
    for (sure, _), label, colour, dashes in zip(pooled, LABELS, COLOURS, DASHES, strict=True):
        share = np.histogram(sure, edges)[0] / max(len(sure), 1)
        axes.stairs(share, edges, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.set_xlabel("confidence")
    axes.set_ylabel("predictions")
