"""Picture 3: what became of the candidates of each generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.discovery.candidate import Fate
from evoloss.report.palette import LIGHT
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Group, Run
from evoloss.report.stretches import ends, length
from evoloss.store.entry import Entry
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_NAME = "03-fates"
_COLOURS = {
    "evaluated": LIGHT["found"],
    "raced out": LIGHT["eighth"],
    "rejected after tuning": LIGHT["fourth"],
    "rejected early": LIGHT["usual"],
    "failed": LIGHT["ink"],
    "gradient-equivalent": LIGHT["fifth"],
    "duplicate": LIGHT["muted"],
}


def picture(groups: Sequence[Group]) -> Picture:
    """Stacked by generation; for several runs of a method the mean."""
    able = [group for group in groups if any(run.generations for run in group.runs)]
    if not able:
        return Picture(_NAME, "What became of the candidates", "No generation is finished yet.")
    counts = [(group, _counts(group.runs)) for group in able]
    several = len(able) > 1
    panels = tuple(
        Panel(group.label if several else "By generation", partial(_draw, found), legend=2,
              height=3.2)
        for group, found in counts
    )  # fmt: skip
    if not several:
        totals = Counter(label(each) for run in able[0].runs for each in run.candidates)
        panels += (Panel("In all", partial(_draw_totals, totals), height=3.2),)
    rows = [
        (group.label, number + 1, *map(float, row))
        for group, found in counts
        for number, row in enumerate(found)
    ]
    table = Table(("method", "generation", *_COLOURS), rows)
    return Picture(_NAME, "What became of the candidates", _caption(able), panels, {_NAME: table})


def _caption(groups: Sequence[Group]) -> str:
    candidates = [each for group in groups for run in group.runs for each in run.candidates]
    tally = Counter(label(each) for each in candidates)
    trained = tally["evaluated"] + tally["raced out"]
    mean = "; the mean over seeds" if any(len(group.runs) > 1 for group in groups) else ""
    step = length(max(run.generations for group in groups for run in group.runs))
    mean += f"; each bar is the mean of {step} generations" if step > 1 else ""
    return (
        f"Of {counted(len(candidates), 'candidate')} {trained:,} had to be trained; the others "
        "took over a known result (duplicates, equal gradients) or were dropped by the rejection "
        f"test before or after tuning{mean}."
    )


def label(candidate: Entry) -> str:
    """The fate, with rejection told apart by whether the weights had been tuned by then."""
    match candidate.fate:
        case Fate.REJECTED:
            return "rejected after tuning" if candidate.tuned else "rejected early"
        case Fate.SCORED:
            return "evaluated"
        case Fate.EQUIVALENT:
            return "gradient-equivalent"
        case fate:
            return fate.value


def _counts(runs: Sequence[Run]) -> Array:
    """(generations, fates): the mean over the runs that have come so far."""
    total = np.zeros((max(run.generations for run in runs), len(_COLOURS)))
    order = list(_COLOURS)
    for run in runs:
        for candidate in run.candidates:
            total[candidate.generation, order.index(label(candidate))] += 1
    reached = [sum(run.generations > number for run in runs) for number in range(len(total))]
    mean: Array = total / np.array(reached)[:, None]
    return mean


def _draw(counts: Array, axes: Axes) -> None:
    begins, stops = np.array(ends(len(counts))).T
    means = np.add.reduceat(counts, begins) / (stops - begins)[:, None]
    base = np.zeros(len(means))
    for column, (name, colour) in zip(means.T, _COLOURS.items(), strict=True):
        if column.any():
            axes.bar((begins + stops + 1) / 2, column, bottom=base, width=0.92 * (stops - begins),
                     color=colour, label=name)  # fmt: skip
        base += column
    axes.grid(False, axis="x")
    axes.set_xlim(0.4, len(counts) + 0.6)
    axes.set_xlabel("generation")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylabel("candidates")


def _draw_totals(totals: Mapping[str, int], axes: Axes) -> None:
    names = list(_COLOURS)[::-1]
    amounts = [totals.get(name, 0) for name in names]
    axes.barh(names, amounts, color=[_COLOURS[name] for name in names])
    for row, amount in enumerate(amounts):
        share = f"{amount:,} ({100 * amount / sum(amounts):.0f} %)"
        axes.annotate(share, (amount, row), (4, 0), textcoords="offset points", va="center",
                      fontsize=8.5)  # fmt: skip
    axes.set_xlim(0, 1.35 * max(amounts))
    axes.grid(False, axis="y")
    axes.set_xlabel("candidates")
