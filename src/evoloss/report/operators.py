"""Picture 6: which operators the losses are made of, over the run and among the best."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.lang.ops import OPERATORS
from evoloss.report.palette import FOUND, LIGHT
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run, ranked
from evoloss.report.stretches import ends, length
from evoloss.report.stretches import name as stretch
from evoloss.store.entry import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NAME = "06-operators"
_TITLE = "Operators"
_BEST = 0.1
"""The share of the scored losses that counts as the best."""
# In order: what is quoted, calls, sums and comparisons, products, and signs but of numbers.
_OPERATOR = re.compile(r'"[^"]*"|[A-Za-z_]\w*\(| [-+<>=!]=? |[*/]|-(?=[A-Za-z_(])')
_NAMES = {
    f"{name}(" if row.infix is None
    else f" {row.infix} " if row.arity == 2 and row.precedence != 2
    else row.infix: name
    for name, row in OPERATORS.items()
}  # fmt: skip
"""Operators by how they are written."""


def picture(groups: Sequence[Group]) -> Picture:
    """Shares of the operators' occurrences, over all runs."""
    runs = [run for group in groups for run in group.runs if run.candidates]
    if not runs:
        return Picture(_NAME, _TITLE, "No generation is finished yet.")
    parts = [occurrences(members) for members in _by_stretch(runs)]
    overall = shares(sum(parts, Counter()))
    if not overall:
        return Picture(_NAME, _TITLE, "Neural networks are not made of operators.")
    best: list[Entry] = []
    for run in runs:
        scored = ranked(run.candidates)
        best += scored[: max(1, round(_BEST * len(scored)))]
    elect = shares(occurrences(best))
    names = sorted(overall, key=lambda name: -overall[name])
    matrix = np.array([[found.get(name, 0.0) for name in names] for found in map(shares, parts)])
    stretches = ends(max(run.generations for run in runs))
    rows = [
        (name, overall[name], elect.get(name, 0.0), *map(float, matrix[:, column]))
        for column, name in enumerate(names)
    ]
    columns = ("operator", "all", "best", *(f"generation {stretch(*each)}" for each in stretches))
    caption = (
        f"Share of each operator among all operators of the proposed structures: in the best tenth "
        f"of the fully trained losses ({len(best):,}) against all candidates, and by generation "
        "(the darker the more frequent)."
    )
    height = max(3.6, 0.8 + 0.17 * len(names))
    panels = (
        Panel("All and best", partial(_draw_bars, names, overall, elect), legend=2, height=height),
        Panel("By generation", partial(_draw_map, names, matrix, stretches), height=height),
    )
    return Picture(_NAME, _TITLE, caption, panels, {_NAME: Table(columns, rows)})


def _by_stretch(runs: Sequence[Run]) -> list[list[Entry]]:
    """The candidates of each stretch of generations, over all runs."""
    stretches = ends(max(run.generations for run in runs))
    found: list[list[Entry]] = [[] for _ in stretches]
    step = length(stretches[-1][1])
    for run in runs:
        for each in run.candidates:
            found[each.generation // step].append(each)
    return found


def occurrences(candidates: Iterable[Entry]) -> Counter[str]:
    """How often each operator is in the candidates' structures.

    The texts are searched for operators as `to_text` writes them: reading a hundred thousand as
    expressions would be the longest part of a report.
    """
    found = Counter(_OPERATOR.findall("\n".join(each.structure for each in candidates)))
    return Counter({_NAMES[text]: count for text, count in found.items() if text in _NAMES})


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """How large a part of all occurrences each operator has."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def _draw_bars(
    names: Sequence[str], overall: dict[str, float], best: dict[str, float], axes: Axes
) -> None:
    rows = np.arange(len(names))
    axes.barh(rows - 0.2, [best.get(name, 0.0) for name in names], 0.4, color=FOUND, label="best")
    axes.barh(rows + 0.2, [overall[name] for name in names], 0.4, color=LIGHT["muted"],
              alpha=0.6, label="all")  # fmt: skip
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.grid(False, axis="y")


def _draw_map(
    names: Sequence[str], matrix: Array, stretches: Sequence[tuple[int, int]], axes: Axes
) -> None:
    """A tile for each operator and stretch; opacity, so that it reads on any ground."""
    from matplotlib.colors import to_rgba

    for row, line in enumerate(matrix.T / matrix.max()):
        tiles = _tiles(line)
        colours = [to_rgba(FOUND, float(line[first])) for first, _ in tiles]
        begins = [(stretches[first][0], stretches[last][1]) for first, last in tiles]
        spans = [(begin + 0.5, stop - begin) for begin, stop in begins]
        axes.broken_barh(spans, (row - 0.45, 0.9), facecolors=colours, linewidth=0)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0.5, stretches[-1][1] + 0.5)
    axes.set_xlabel("generation")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.grid(False)


def _tiles(values: Array) -> list[tuple[int, int]]:
    """The first and the last place of each run of equal values."""
    begins = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(begin, stop - 1) for begin, stop in pairwise(begins)]
