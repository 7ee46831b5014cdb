"""Picture 10: where the search's time and gradient steps went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evoloss.report.fates import label as fate_label
from evoloss.report.palette import INK, series
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import KIND, Group, Run
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "10-budget"


def picture(groups: Sequence[Group]) -> Picture:
    """Seconds by stage and gradient steps by fate; for several runs of a method the mean."""
    seconds = {group.label: _mean([run.budget.seconds for run in group.runs]) for group in groups}
    steps = {group.label: _mean([_steps(run) for run in group.runs]) for group in groups}
    if not any(sum(each.values()) for each in seconds.values()):
        return Picture(_NAME, "Budget", "No generation is finished yet.")
    rows = [
        (method, unit, name, float(amount))
        for unit, table in (("seconds", seconds), ("gradient steps", steps))
        for method, spent in table.items()
        for name, amount in spent.items()
    ]
    runs = [run for group in groups for run in group.runs]
    total = sum(sum(run.budget.seconds.values()) for run in runs)
    caption = (
        f"{counted(sum(run.budget.candidates for run in runs), 'candidate')} took "
        f"{_span(total)} and {counted(sum(run.budget.steps for run in runs), 'gradient step')} of "
        f"{_what(runs[0])}: wall time "
        "by stage, and steps by what became of the candidate they were spent on"
        + (" (mean over the runs of a method)." if len(runs) > len(groups) else ".")
    )
    legend = 2 * (len(groups) > 1)
    panels = (
        Panel("Seconds by stage", partial(_draw, seconds, "seconds"), legend),
        Panel("Gradient steps", partial(_draw, steps, "steps"), legend),
    )
    table = Table(("method", "unit", "what for", "amount"), rows)
    return Picture(_NAME, "Budget", caption, panels, {_NAME: table})


def _what(run: Run) -> str:
    return "adapters" if run.kind == KIND else "base networks"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _steps(run: Run) -> dict[str, float]:
    """Gradient steps by fate, and those of the finalists, which are in the budget only."""
    spent: dict[str, float] = defaultdict(float)
    for candidate in run.candidates:
        if candidate.steps:
            spent[fate_label(candidate)] += candidate.steps
    if finalists := run.budget.steps - sum(spent.values()):
        spent["finalists"] = finalists
    return dict(spent)


def _mean(amounts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in amounts for name in each)
    return {name: sum(each.get(name, 0.0) for each in amounts) / len(amounts) for name in names}


def _draw(spent: Mapping[str, Mapping[str, float]], unit: str, axes: Axes) -> None:
    totals = _mean(list(spent.values()))
    names = sorted(totals, key=lambda name: -totals[name])
    thickness = 0.8 / len(spent)
    for index, (method, own) in enumerate(spent.items()):
        rows = np.arange(len(names)) + (index - (len(spent) - 1) / 2) * thickness
        amounts = [own.get(name, 0.0) for name in names]
        axes.barh(rows, amounts, 0.9 * thickness, color=series(index), label=method)
        if len(spent) == 1:
            for row, amount in zip(rows, amounts, strict=True):
                share = amount / (sum(amounts) or 1.0)
                text = f"{amount:,.1f}" if unit == "seconds" else f"{amount:,.0f}"
                axes.annotate(f"{text} ({100 * share:.0f} %)", (amount, row), (4, 0), va="center",
                              textcoords="offset points", fontsize=8.5, color=INK)  # fmt: skip
    if len(spent) == 1:
        axes.set_xlim(0, 1.45 * max(totals.values(), default=1.0))
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda amount, _: f"{amount:,.1f}".removesuffix(".0"))
    axes.set_xlabel(unit)
