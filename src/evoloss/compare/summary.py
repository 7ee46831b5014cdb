"""The table of a comparison: scores over seeds, ranks, and tests corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evoloss.compare.plan import TUNED, USUAL, Cell, Plan
from evoloss.compare.runner import Record, mark, marked
from evoloss.discovery.candidate import Candidate
from evoloss.discovery.comparison import LEVEL, compare
from evoloss.discovery.result import Budget, found_losses
from evoloss.errors import UserError
from evoloss.lang.text import to_text
from evoloss.lang.weights import constant_count, edge_count
from evoloss.store import Store
from evoloss.tasks.task import Task


@dataclass(frozen=True)
class Row:
    """One method on one task, over seeds.

    validation, tests: the metric's own values, one a seed; tests by multiple of the fitness steps.
    p_usual, p_tuned: Holm-corrected p-values of the paired tests against the usual loss as it is
    and with its learning rate and momentum tuned; None where there is nothing to test.
    verdict: `better` only where it beats both; rank: by the mean of the shortest meta-test.
    candidates, seconds: of a search; parameters: weights of a loss; formula: of the first seed.
    """

    method: str
    validation: tuple[float, ...]
    tests: dict[int, tuple[float, ...]]
    p_usual: float | None
    p_tuned: float | None
    verdict: str
    rank: int
    candidates: float
    seconds: float
    parameters: float
    formula: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "tests": {str(factor): s for factor, s in self.tests.items()}}


@dataclass(frozen=True)
class Summary:
    """The rows of one task, in the order of the methods."""

    task: str
    network: str
    metric: str
    higher_is_better: bool
    steps: int
    trainings: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Search:
    """What one cell's store tells."""

    method: str
    validation: float
    tests: dict[int, float]
    candidates: int
    seconds: float
    parameters: int
    formula: str


def summarise(plan: Plan, spec: str, folder: str, task: Task) -> Summary:
    """The summary of a completed comparison on one task."""
    found: dict[str, list[_Search]] = {method: [] for method in plan.all_methods}
    steps = task.training.steps
    for cell in plan.cells(spec, folder):
        steps = cell.settings.fitness_steps or task.training.steps
        found[cell.method].append(_read(cell, plan, task, steps))
    first = plan.factors[0]
    scores = {name: [each.tests[first] for each in runs] for name, runs in found.items()}
    higher = task.metric.higher_is_better
    own = [name for name in scores if name not in (USUAL, TUNED)]
    against = {rival: corrected(scores, own, rival, higher) for rival in (USUAL, TUNED)}
    order = sorted(scores, key=lambda name: _order(scores[name], higher))
    rows = []
    for name, runs in found.items():
        p = {rival: against[rival].get(name) for rival in (USUAL, TUNED)}
        rows.append(
            Row(
                method=name,
                validation=tuple(each.validation for each in runs),
                tests={f: tuple(each.tests[f] for each in runs) for f in plan.factors},
                p_usual=p[USUAL],
                p_tuned=p[TUNED],
                verdict=_verdict(name, scores, p, higher),
                rank=1 + order.index(name),
                candidates=fmean(each.candidates for each in runs),
                seconds=fmean(each.seconds for each in runs),
                parameters=fmean(each.parameters for each in runs),
                formula=runs[0].formula,
            )
        )
    return Summary(
        task.name, task.network_name, task.metric.name, higher, steps, plan.trainings, tuple(rows)
    )


def _read(cell: Cell, plan: Plan, task: Task, steps: int) -> _Search:
    with Store.open(cell.directory, write=False) as store:
        candidates, outcome = store.candidates(), store.outcome
        if outcome is None:
            return _failed(cell, plan, candidates, store.seconds())
        best = found_losses(outcome, candidates, store.about["output"])[0]
        marks = {factor: mark(plan, task, cell.seed, factor * steps) for factor in plan.factors}
        tested = {factor: marked(store, each) for factor, each in marks.items()}
        budget = Budget.of(candidates, store.seconds(), outcome)
    structure, edges = best.candidate.expression, best.candidate.phi is not None
    constants = constant_count(structure) if cell.settings.weights == "constants" else 0
    return _Search(
        method=cell.method,
        validation=task.metric.shown(best.error),
        tests={factor: _mean(cell, record) for factor, record in tested.items()},
        candidates=budget.candidates,
        seconds=sum(budget.seconds.values()),
        parameters=edge_count(structure) if edges else constants,
        formula=to_text(best.expression, digits=4),
    )


def _failed(
    cell: Cell, plan: Plan, candidates: Sequence[Candidate], seconds: dict[str, float]
) -> _Search:
    """A search without any loss that could be trained."""
    return _Search(
        method=cell.method,
        validation=math.nan,
        tests=dict.fromkeys(plan.factors, math.nan),
        candidates=len(candidates),
        seconds=sum(seconds.values()),
        parameters=0,
        formula="none could be trained",
    )


def _mean(cell: Cell, record: Record | None) -> float:
    """Over the trainings of a meta-test; NaN if one of them failed."""
    if record is None:
        raise UserError(f"run '{cell.directory}' lacks a meta-test: run the comparison again")
    scores = record["rows"][0]["scores"]
    return fmean(math.nan if score is None else score for score in scores)


def _order(scores: Sequence[float], higher: bool) -> float:
    mean = fmean(scores)
    if not math.isfinite(mean):
        return math.inf
    return -mean if higher else mean


def corrected(
    scores: Mapping[str, Sequence[float]], names: Sequence[str], rival: str, higher: bool
) -> dict[str, float | None]:
    """The p-values of some methods against a rival, after Holm; None where there is no test."""
    raw = {name: compare(scores[name], scores[rival], higher_is_better=higher).p for name in names}
    tested = [name for name in names if raw[name] is not None]
    after = holm([float(raw[name] or 0.0) for name in tested])
    return {**raw, **dict(zip(tested, after, strict=True))}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): each p-value as if it were the only one."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = highest
    return corrected


def _verdict(
    name: str, scores: dict[str, list[float]], p: dict[str, float | None], higher: bool
) -> str:
    """Better only where a method beats the tuned usual loss as well as the plain one."""
    if name in (USUAL, TUNED):
        return ""
    if any(not math.isfinite(score) for score in scores[name]):
        return "failed"
    shown = {}
    for rival, value in p.items():
        gain = _order(scores[rival], higher) - _order(scores[name], higher)
        sure = value is not None and value < LEVEL
        shown[rival] = 0 if not sure else 1 if gain > 0 else -1
    if min(shown.values()) < 0:
        return "worse" if shown[TUNED] < 0 else "worse than untuned"
    if all(shown.values()):
        return "better"
    return "better than untuned" if shown[USUAL] else "no difference"
