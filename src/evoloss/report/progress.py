"""Picture 2: how the search came along, and compared methods over the same budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.report.limits import limits
from evoloss.report.palette import FOUND, MUTED, USUAL, series
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import KIND, Group, Run, bare
from evoloss.report.stretches import ends, length
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NAME = "02-progress"
_TITLE = "Search progress"


def picture(groups: Sequence[Group]) -> Picture:
    """One run by generation; several by the number of candidates, seeds of a method together."""
    runs = [run for group in groups for run in group.runs if run.best is not None]
    if not runs:
        return Picture(_NAME, _TITLE, "No loss has been scored yet.")
    return _one(runs[0]) if len(runs) == 1 else _compared(groups)


def statistics(run: Run, step: int = 1) -> Array:
    """(G, 5): best so far, then best, lower quartile, median and upper quartile.

    G counts generations, or stretches of `step` of them. In the metric's own values; of the members
    with a score at the full number of training steps, their own or one taken over. NaN where there
    is none.
    """
    best = math.inf
    rows = []
    for errors in _errors(run, step):
        best = min([best, *errors])
        own = np.percentile(errors, [0, 25, 50, 75]) if errors else np.full(4, np.nan)
        rows.append([best if math.isfinite(best) else math.nan, *own])
    return run.shown(1.0) * np.array(rows).reshape(-1, 5)


def _errors(run: Run, step: int) -> list[list[float]]:
    by_stretch: list[list[float]] = [[] for _ in range(0, run.generations, step)]
    for candidate in run.candidates:
        error = run.full_score(candidate)
        if error is not None:
            by_stretch[candidate.generation // step].append(error)
    return by_stretch


def _one(run: Run) -> Picture:
    found, step = statistics(run), length(run.generations)
    metric = run.measure.name
    columns = ("generation", "best so far", "best", "quartile 1", "median", "quartile 3")
    rows = [(number + 1, *map(float, row)) for number, row in enumerate(found)]
    panels = (
        Panel("Best so far", partial(_draw_best, found[:, 0], *_usual(run), metric)),
        Panel("Each generation" if step == 1 else f"Every {step} generations",
              partial(_draw_spread, *_spread(run, step), metric), legend=3),
    )  # fmt: skip
    caption = (
        f"Validation {metric} by generation, one training of {_steps(run)} a loss: the best so "
        "far, and best, median and quartiles of each generation’s members with a full score "
        "(elites included)."
    )
    return Picture(_NAME, _TITLE, caption, panels, {_NAME: Table(columns, rows)})


def _steps(run: Run) -> str:
    if run.kind == KIND:
        return f"at most {counted(run.settings['epochs'], 'epoch')}"
    steps = run.settings.get("fitness_steps")
    return counted(steps, "step") if steps else "the task’s own number of steps"


def _usual(run: Run) -> tuple[float | None, str]:
    """The usual loss's score, where it was the first candidate, and what to call it."""
    first = run.candidates[0]
    error = run.full_score(first) if bare(first.operator) == "usual loss" else None
    tuned = "" if run.settings.get("local_search") == "none" else ", tuned alike"
    return None if error is None else run.shown(error), f"usual loss{tuned}"


def _draw_best(best: Array, usual: float | None, name: str, metric: str, axes: Axes) -> None:
    generations = np.arange(1, len(best) + 1)
    axes.step(generations, best, where="post", color=FOUND)
    axes.plot(generations[-1:], best[-1:], "o", color=FOUND, markersize=5)
    if usual is not None:
        axes.axhline(usual, color=USUAL, linestyle=(0, (6, 2)), linewidth=1.4)
        side = 1 if usual < best[-1] else -1  # towards the curve, so that it stays in the axes
        axes.annotate(name, (1, usual), (2, 3 * side), textcoords="offset points",
                      va="bottom" if side > 0 else "top", color=USUAL, fontsize=9)  # fmt: skip
    axes.set_xlabel("generation")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylabel(f"validation {metric}")


def _spread(run: Run, step: int) -> tuple[Array, Array]:
    """The middles of the stretches of generations, and their statistics."""
    middles = [(begin + end + 1) / 2 for begin, end in ends(run.generations)]
    return np.array(middles), statistics(run, step)


def _draw_spread(generations: Array, found: Array, metric: str, axes: Axes) -> None:
    _, low, first, median, third = found.T
    axes.fill_between(generations, first, third, color=FOUND, alpha=0.22, linewidth=0,
                      label="quartiles")  # fmt: skip
    axes.plot(generations, median, color=FOUND, label="median")
    axes.plot(generations, low, color=MUTED, linewidth=1.2, linestyle=(0, (2, 1)), label="best")
    axes.set_ylim(*limits(found[:, 1:], keep=low))
    axes.set_xlabel("generation")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylabel(f"validation {metric}")


def _compared(groups: Sequence[Group]) -> Picture:
    able = [group for group in groups if any(run.best is not None for run in group.runs)]
    metric = able[0].runs[0].measure.name
    curves = [(group.label, *_over_candidates(group)) for group in able]
    rows = [
        (label, int(count), *map(float, row))
        for label, counts, found in curves
        for count, row in zip(counts, found, strict=True)
    ]
    columns = ("method", "candidates", "median of best so far", "lowest", "highest")
    seeds = ", ".join(f"{group.label}: {len(group.runs)}" for group in able)
    caption = (
        f"Best validation {metric} so far over the number of candidates proposed: median over "
        f"seeds, with the range of the seeds ({seeds}){_outside(curves)}."
    )
    panel = Panel("Best so far", partial(_draw_compared, curves, metric), legend=2, height=3.4)
    return Picture(_NAME, _TITLE, caption, (panel,), {_NAME: Table(columns, rows)})


def _outside(curves: Sequence[tuple[str, Array, Array]]) -> str:
    low, high = _shown(curves)
    names = [label for label, _, found in curves if not low <= found[-1, 0] <= high]
    return f"; outside the axis: {', '.join(names)}" if names else ""


def _shown(curves: Sequence[tuple[str, Array, Array]]) -> tuple[float, float]:
    """The axis: by the medians, so that one bad method or seed does not flatten the others."""
    return limits(np.concatenate([found[:, 0] for _, _, found in curves]))


def _over_candidates(group: Group) -> tuple[Array, Array]:
    """(G,) candidates and (G, 3) median, lowest and highest of the seeds' best so far."""
    runs = [run for run in group.runs if run.generations]
    curves = [statistics(run)[:, 0] for run in runs]
    length = min(len(curve) for curve in curves)
    best = np.stack([curve[:length] for curve in curves])
    known = np.isfinite(best).all(axis=0)
    proposed = Counter(each.generation for each in runs[0].candidates)
    counts = np.cumsum([proposed[number] for number in range(length)])
    best = best[:, known]
    return counts[known], np.stack([np.median(best, 0), best.min(0), best.max(0)], axis=1)


def _draw_compared(curves: Sequence[tuple[str, Array, Array]], metric: str, axes: Axes) -> None:
    most = max(counts[-1] for _, counts, _ in curves)
    for index, (label, counts, found) in enumerate(curves):
        colour = series(index)
        axes.step(counts, found[:, 0], where="post", color=colour, label=label)
        # A method that stopped early, such as a fixed loss, is still compared with the others.
        axes.plot([counts[-1], most], [found[-1, 0]] * 2, "o-", color=colour, markersize=3,
                  markevery=[0], linewidth=0.9, alpha=0.6)  # fmt: skip
        axes.fill_between(counts, found[:, 1], found[:, 2], step="post", color=colour, alpha=0.15,
                          linewidth=0)  # fmt: skip
    axes.set_ylim(*_shown(curves))
    axes.set_xlabel("candidates")
    axes.set_ylabel(f"validation {metric}")
