"""Picture 5: how the best loss came about, ancestor by ancestor."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from evoloss.report.limits import limits
from evoloss.report.mathematics import formula
from evoloss.report.palette import LIGHT, MUTED, variable
from evoloss.report.picture import Panel, Picture, Table
from evoloss.report.runs import Run, bare
from evoloss.store.entry import Entry
from evoloss.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "05-lineage"
_TITLE = "Lineage of the best loss"
_COPIES = ("elite", "reproduction")
_COLOURS = {
    "crossover": LIGHT["found"],
    "mutation": LIGHT["third"],
    "initial": LIGHT["fifth"],
    "usual loss": LIGHT["usual"],
    "known loss": LIGHT["usual"],
    "varied": LIGHT["fourth"],
    "llm": LIGHT["eighth"],
    "refinement": LIGHT["eighth"],
}
_MARKERS = {
    "crossover": "o", "mutation": "D", "initial": "s", "usual loss": "^", "known loss": "v",
    "varied": "P", "llm": "*", "refinement": "h",
}  # fmt: skip
_ROLE = ("main line", "other ancestor")
_DRAWN = 500  # ancestors, the latest ones
_FIRST, _LATEST = 15, 45  # steps of a longer main line that are written out


@dataclass(frozen=True)
class Step:
    """One ancestor that was made anew. parents: of those, copies of copies traced back."""

    candidate: Entry
    parents: tuple[int, ...]
    error: float | None


def picture(run: Run | None) -> Picture:
    """The ancestors of the best loss of a run, and its main line in words."""
    if run is None or run.best is None:
        return Picture(_NAME, _TITLE, "No loss has been scored yet.")
    steps = ancestors(run, run.candidates[run.best.candidate.id])
    line = main_line(steps, run.best.candidate.id)
    shown = {each.candidate.id for each in line}
    rows = [
        (
            each.candidate.id, each.candidate.generation + 1, each.candidate.operator,
            " ".join(map(str, each.parents)), _ROLE[each.candidate.id not in shown],
            None if each.error is None else run.shown(each.error),
            each.candidate.shown,
        )
        for each in steps.values()
    ]  # fmt: skip
    columns = ("id", "generation", "operator", "parents", "role",
               f"validation {run.measure.name}", "formula")  # fmt: skip
    caption = (
        f"The best loss and all it descends from ({len(steps)}, copies left out) by generation; "
        "the thick line follows the parent that gave the tree (of a crossover, the first), and is "
        f"written out with the operator and the validation {run.measure.name} of each step (one "
        f"training each, seed of the search){_left_out(len(steps), len(line))}."
    )
    return Picture(
        _NAME,
        _TITLE,
        caption,
        (Panel("Ancestors", partial(_draw, run, steps, line), legend=4, height=3.4),),
        {_NAME: Table(columns, rows)},
        f'<ol class="lineage">{_items(run, line)}</ol>',
    )


def _left_out(steps: int, line: int) -> str:
    """What to say of a long lineage, of which only the table has all."""
    parts = []
    if steps > _DRAWN:
        parts.append(f"drawn are the latest {_DRAWN} ancestors and the main line")
    if line > _FIRST + _LATEST:
        parts.append(f"written out are the first {_FIRST} and the last {_LATEST} of its {line:,}")
    return "".join(f"; {each}" for each in parts)


def ancestors(run: Run, best: Entry) -> dict[int, Step]:
    """The best and all it descends from, by id, oldest first; copies are passed over."""
    found: dict[int, Step] = {}
    waiting = [_made(run, best)]
    while waiting:
        candidate = waiting.pop()
        if candidate.id in found:
            continue
        parents = [_made(run, run.candidates[id]) for id in candidate.parents]
        ids = tuple(dict.fromkeys(each.id for each in parents))
        found[candidate.id] = Step(candidate, ids, run.full_score(candidate))
        waiting += parents
    return dict(sorted(found.items()))


def _made(run: Run, candidate: Entry) -> Entry:
    """The ancestor of which this one is a copy; itself if it is none."""
    while bare(candidate.operator) in _COPIES and candidate.parents:
        candidate = run.candidates[candidate.parents[0]]
    return candidate


def main_line(steps: dict[int, Step], best: int) -> list[Step]:
    """From the best back through first parents, youngest first."""
    line = [steps[best] if best in steps else steps[max(steps)]]
    while line[-1].parents:
        line.append(steps[line[-1].parents[0]])
    return line


def _items(run: Run, line: Sequence[Step]) -> str:
    """The steps of the main line, youngest first; of a long one not those in the middle."""
    if len(line) <= _FIRST + _LATEST:
        return "".join(_item(run, each) for each in line)
    between = f"<li>{counted(len(line) - _FIRST - _LATEST, 'step')}</li>"
    latest, first = line[:_LATEST], line[-_FIRST:]
    return "".join([*(_item(run, each) for each in latest), between,
                    *(_item(run, each) for each in first)])  # fmt: skip


def _item(run: Run, step: Step) -> str:
    candidate = step.candidate
    score = (
        f"{html.escape(run.measure.name)} {run.measure.shown(step.error)}"
        if step.error is not None
        else html.escape(run.original(candidate).fate.value)
    )
    other = f" with #{step.parents[1]}" if len(step.parents) > 1 else ""
    training = "" if candidate.epochs is None else f" · {counted(candidate.epochs, 'epoch')}"
    training += "" if candidate.rate == 1.0 else f" · rate × {candidate.rate:.2g}"
    colour = variable(_colour(candidate.operator))
    return (
        f'<li style="border-color: {colour}"><span class="facts">'
        f"<b>{html.escape(candidate.operator)}</b>{other} · generation "
        f"{candidate.generation + 1} · #{candidate.id}{training} · {score}</span>"
        f"{formula(candidate.loss)}</li>"
    )


def _colour(operator: str) -> str:
    return _COLOURS.get(bare(operator), LIGHT["sixth"])


def _draw(run: Run, steps: dict[int, Step], line: Sequence[Step], axes: Axes) -> None:
    place = {
        id: (each.candidate.generation + 1, run.shown(each.error))
        for id, each in steps.items()
        if each.error is not None
    }
    drawn = dict(list(steps.items())[-_DRAWN:])
    for id, step in drawn.items():
        for parent in step.parents:
            if id in place and parent in place and parent in drawn:
                axes.plot(*zip(place[parent], place[id], strict=True), color=MUTED, linewidth=0.7,
                          alpha=0.5)  # fmt: skip
    path = [place[each.candidate.id] for each in line if each.candidate.id in place]
    axes.plot(*zip(*path, strict=True), color=LIGHT["ink"], linewidth=2)
    for operator in dict.fromkeys(step.candidate.operator for step in drawn.values()):
        own = [place[id] for id, each in drawn.items()
               if id in place and each.candidate.operator == operator]  # fmt: skip
        if own:
            axes.plot(*zip(*own, strict=True), _MARKERS.get(bare(operator), "o"), label=operator,
                      color=_colour(operator), markersize=5.5, linestyle="none")  # fmt: skip
    axes.set_xlabel("generation")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylabel(f"validation {run.measure.name}")
    axes.set_ylim(*limits([score for _, score in place.values()], [score for _, score in path]))
