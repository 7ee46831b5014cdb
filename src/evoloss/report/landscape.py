"""Picture 8: the loss landscape around the trained weights, on a filter-normalised random plane.

Li, Xu, Taylor, Studer and Goldstein 2018 ("Visualizing the loss landscape of neural nets"): each
filter of a random direction is given the norm of the network's own filter; biases are not moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evoloss.discovery.randomness import Purpose, stream
from evoloss.engine.stack import Layout
from evoloss.engine.training import fresh_network
from evoloss.lang.evaluate import torch_value
from evoloss.lang.expr import Expr
from evoloss.report.curves import COLOURS, DASHES, LABELS
from evoloss.report.measurements import Measurements
from evoloss.report.palette import FOUND, INK, MUTED
from evoloss.report.picture import Panel, Picture, Table
from evoloss.tasks.task import Data
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

NAME = "08-landscape"
TITLE = "Loss landscape"
_REACH = 1.0
_RADII = np.linspace(0.0, _REACH, 9)
_HALF = 4  # the radius at which flatness is told: half the norm of every filter
_ANGLES = 2 * np.pi * np.arange(12) / 12
_PLANES = 2_000_000  # keys of the random planes
_AT_ONCE = 4_000_000  # numbers of one layer's activations
_LEVELS = 9


@dataclass(frozen=True)
class _Landscape:
    """surfaces: (L, G, G) of the first seed over `axis` (G,); rises: (L, S, R) by radius."""

    axis: Array
    surfaces: Array
    rises: Array


def picture(measured: Measurements) -> Picture:
    """The usual loss on training data around the weights that each loss led to."""
    found = _measure(measured)
    flat = found.rises[:, :, _HALF].mean(1)
    flatter = int((found.rises[0, :, _HALF] < found.rises[1, :, _HALF]).sum())
    rows: list[tuple[object, ...]] = [
        (label, float(a), float(b), float(found.surfaces[index, i, j]))
        for index, label in enumerate(LABELS)
        for i, a in enumerate(found.axis)
        for j, b in enumerate(found.axis)
    ]
    profile = [
        (label, seed, float(radius), float(rise))
        for label, own in zip(LABELS, found.rises, strict=True)
        for seed, line in enumerate(own)
        for radius, rise in zip(_RADII, line, strict=True)
    ]
    levels = _levels(found.surfaces)
    panels = (
        *(
            Panel(f"Trained with the {label} loss", partial(_draw, found.axis, surface, levels),
                  height=3.6)
            for label, surface in zip(LABELS, found.surfaces, strict=True)
        ),
        Panel("Mean rise with distance", partial(_draw_rise, found.rises), 2, height=3.6),
    )  # fmt: skip
    seeds = found.rises.shape[1]
    caption = (
        "The usual loss on training data over a filter-normalised random plane through the trained "
        f"weights (the dot; same levels in both), and its mean rise with the distance from them "
        f"({counted(seeds, 'seed')}, {counted(measured.plan.steps, 'step')}): at half the filters’ "
        f"norm it is {flat[0]:.3g} around the found loss’s weights and {flat[1]:.3g} around the "
        f"usual one’s; the found minimum is the flatter one in {flatter} of {seeds}."
    )
    tables = {
        NAME: Table(("loss", "first direction", "second direction", "usual loss"), rows),
        f"{NAME}-rise": Table(("loss", "seed", "distance", "rise"), profile),
    }
    return Picture(NAME, TITLE, caption, panels, tables)


def _measure(measured: Measurements) -> _Landscape:
    bench = measured.bench
    layout = Layout(fresh_network(bench.task.network, 0))
    axis = np.linspace(-_REACH, _REACH, measured.plan.grid)
    first, second = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))
    rings = [part.ravel() for part in np.meshgrid(_RADII, _ANGLES, indexing="ij")]
    polar = rings[0] * np.cos(rings[1]), rings[0] * np.sin(rings[1])
    surfaces, rises = [], []
    for seed, weights in enumerate(measured.curves.final):
        data = measured.some(measured.trial(seed).train, seed)
        rng = stream(bench.settings.seed, Purpose.FINALISTS, _PLANES, seed)
        random = torch.from_numpy(rng.standard_normal((2, layout.total))).to(weights)
        by_loss = []
        for theta in weights:
            plane = normalised(random, theta, layout)
            if seed == 0:
                surfaces.append(_heights(measured, theta, plane, (first, second), data))
            ring = _heights(measured, theta, plane, polar, data).reshape(len(_RADII), -1)
            by_loss.append(ring.mean(1) - ring[0].mean())
        rises.append(by_loss)
    shape = (-1, len(axis), len(axis))
    return _Landscape(axis, np.reshape(surfaces, shape), np.array(rises).swapaxes(0, 1))


def normalised(random: Tensor, theta: Tensor, layout: Layout) -> Tensor:
    """Directions (2, D), each filter scaled to the norm of that of θ (D,); biases are zero."""
    own, named = layout.split(theta), layout.split(random)
    scaled = {}
    for name, part in named.items():
        if own[name].dim() < 2:
            scaled[name] = torch.zeros_like(part)
            continue
        filters = part.flatten(2)  # (2, filters, weights of one)
        norms = own[name].flatten(1).norm(dim=1, keepdim=True)
        unit = filters / filters.norm(dim=2, keepdim=True).clamp_min(1e-12)
        scaled[name] = (unit * norms).view_as(part)
    return layout.join(scaled, leading=1)


def _heights(
    measured: Measurements, theta: Tensor, plane: Tensor, at: tuple[Array, Array], data: Data
) -> Array:
    """(P,) values of the usual loss at θ + a · plane[0] + b · plane[1] for the points (a, b)."""
    points = torch.from_numpy(np.stack(at, axis=1)).to(theta)
    chunk = max(1, _AT_ONCE // (len(data) * max(64, data.y.shape[1])))
    usual = measured.bench.usual
    parts = [
        value_of(usual, measured.predictions(theta + some @ plane, data.x), data.y)
        for some in points.split(chunk)
    ]
    return torch.cat(parts).double().cpu().numpy()


def value_of(loss: Expr, f: Tensor, y: Tensor) -> Tensor:
    """(P,) values of a loss for predictions (P, N, C): summed over outputs, averaged over rows."""
    value = torch_value(loss, {"f": f, "y": y.expand_as(f)})
    return value.expand_as(f).sum(-1).mean(-1)


def _levels(surfaces: Array) -> Array:
    """Contour levels of both panels, closer where the surfaces are low."""
    finite = surfaces[np.isfinite(surfaces)]
    if not len(finite) or finite.min() == finite.max():
        return np.array([0.0, 1.0])
    low, high = finite.min(), np.percentile(finite, 95)
    return np.asarray(low + (high - low) * np.linspace(0.0, 1.0, _LEVELS) ** 2)


def _draw(axis: Array, surface: Array, levels: Array, axes: Axes) -> None:
    from matplotlib.colors import to_rgba

    shades = [to_rgba(FOUND, strength) for strength in np.linspace(0.75, 0.05, len(levels) - 1)]
    height = np.ma.masked_invalid(surface.T)
    axes.contourf(axis, axis, height, levels, colors=shades)
    lines = axes.contour(axis, axis, height, levels[1:], colors=MUTED, linewidths=0.6)
    axes.clabel(lines, levels[1::2], fmt="%.3g", fontsize=8, colors=INK)
    axes.plot([0], [0], "o", color=INK, markersize=5)
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")


def _draw_rise(rises: Array, axes: Axes) -> None:
    for own, label, colour, dashes in zip(rises, LABELS, COLOURS, DASHES, strict=True):
        axes.plot(_RADII, own.mean(0), color=colour, linestyle=dashes, label=label)
        axes.fill_between(_RADII, own.min(0), own.max(0), color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("distance, in filter norms")
    axes.set_ylabel("rise of the usual loss")
