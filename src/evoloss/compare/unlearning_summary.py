"""The table of a comparison on unlearning: means over seeds, and tests against the best rival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evoloss.compare import hand_written
from evoloss.compare.summary import corrected
from evoloss.compare.unlearning import evaluation
from evoloss.compare.unlearning_plan import Cell, UnlearnPlan
from evoloss.discovery.comparison import LEVEL
from evoloss.discovery.result import Budget
from evoloss.lang.text import to_text
from evoloss.runs import losses
from evoloss.store import Store
from evoloss.unlearn.problem import Problem

METRICS = (
    "forgetting", "utility_kept", "trained_kept", "forget_rouge", "retain_rouge", "forget_quality",
)  # fmt: skip
"""Shown beside the objective, where there are values."""


@dataclass(frozen=True)
class UnlearnRow:
    """A proposer or a hand-written loss, over seeds.

    search: the objective on the search part, one a seed; test, metrics: on the test part, the mean
    over the adapters of each seed; NaN where a training failed.
    p: Holm-corrected, of the paired test against the best hand-written loss; verdict: what it says;
    both empty for hand-written losses. candidates (or trainings), steps, seconds: of one seed.
    formula: of the first seed.
    """

    name: str
    proposer: bool
    search: tuple[float, ...]
    test: tuple[float, ...]
    metrics: Mapping[str, tuple[float, ...]]
    p: float | None
    verdict: str
    rank: int
    candidates: float
    steps: float
    seconds: float
    formula: str

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is not a number."""
        plain = {**vars(self), "search": _plain(self.search), "test": _plain(self.test)}
        return {**plain, "metrics": {name: _plain(each) for name, each in self.metrics.items()}}


@dataclass(frozen=True)
class UnlearnSummary:
    """The rows, proposers first. best: the hand-written loss with the highest test mean.

    models: what the model before unlearning and the retain model score, mean over seeds.
    """

    task: str
    model: str
    objective: str
    budget: str
    seeds: int
    eval_seeds: int
    best: str | None
    rows: tuple[UnlearnRow, ...]
    models: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "rows": [row.to_json() for row in self.rows]}


@dataclass(frozen=True)
class _One:
    """One proposer or loss with one seed. row: of the evaluation's record, if there is one."""

    search: float
    row: Mapping[str, Any] | None
    candidates: int
    steps: int
    seconds: float
    formula: str


def summarise(plan: UnlearnPlan, problem: Problem) -> UnlearnSummary:
    """The summary of a completed comparison."""
    first = next(plan.cells())
    objective = first.settings.objective
    searched: dict[str, list[_One]] = {name: [] for name in plan.proposers}
    records = []
    for cell in plan.cells():
        kept = evaluation(cell, plan.eval_seeds)
        records += [kept] if kept else []
        searched[cell.proposer].append(_searched(cell, kept))
    written = {name: [_written(plan, seed, name) for seed in range(plan.seeds)]
               for name in plan.against}  # fmt: skip
    every = {**searched, **written}
    test = {name: [_mean(each.row, objective) for each in ones] for name, ones in every.items()}
    best = min((name for name in plan.against if _finite(test[name])),
               key=lambda name: -fmean(test[name]), default=None)  # fmt: skip
    p = {} if best is None else corrected(test, list(searched), best, True)
    order = sorted(every, key=lambda name: -fmean(test[name]) if _finite(test[name]) else math.inf)
    rows = tuple(
        _row(name, ones, name in searched, objective, test, best, p, 1 + order.index(name))
        for name, ones in every.items()
    )
    with Store.open(first.directory, write=False) as store:
        model = store.about["network"]
    return UnlearnSummary(
        problem.data.name, model, objective, str(plan.budget), plan.seeds, plan.eval_seeds, best,
        rows, _models(records),
    )  # fmt: skip


def _row(
    name: str, ones: Sequence[_One], proposer: bool, objective: str,
    test: Mapping[str, Sequence[float]], best: str | None, p: Mapping[str, float | None],
    rank: int,
) -> UnlearnRow:  # fmt: skip
    metrics = {each: tuple(_mean(one.row, each) for one in ones) for each in METRICS}
    shown = {each: values for each, values in metrics.items()
             if each != objective and any(map(math.isfinite, values))}  # fmt: skip
    return UnlearnRow(
        name=name,
        proposer=proposer,
        search=tuple(one.search for one in ones),
        test=tuple(test[name]),
        metrics=shown,
        p=p.get(name),
        verdict=_verdict(test, name, best, p.get(name)) if proposer else "",
        rank=rank,
        candidates=fmean(one.candidates for one in ones),
        steps=fmean(one.steps for one in ones),
        seconds=fmean(one.seconds for one in ones),
        formula=ones[0].formula,
    )


def _searched(cell: Cell, kept: Mapping[str, Any] | None) -> _One:
    with Store.open(cell.directory, write=False) as store:
        candidates, outcome = store.candidates(), store.outcome
        best = losses(store).best if outcome is not None else None
        spent = Budget.of(candidates, store.seconds(), outcome)
    row = None if kept is None else next(each for each in kept["rows"] if each["label"] == "found")
    return _One(
        search=math.nan if best is None else -best.error,
        row=row,
        candidates=spent.candidates,
        steps=spent.steps,
        seconds=sum(spent.seconds.values()),
        formula="none could be trained" if best is None else to_text(best.expression, digits=4),
    )


def _written(plan: UnlearnPlan, seed: int, name: str) -> _One:
    kept = hand_written.read(plan, seed)[name]
    score, row = kept["score"], kept.get("row")
    formula = kept.get("reason", "") if row is None else row["formula"]
    return _One(
        math.nan if score is None else score, row, kept["trainings"], kept["steps"],
        kept["seconds"], formula,
    )  # fmt: skip


def _mean(row: Mapping[str, Any] | None, name: str) -> float:
    """Over the adapters of one seed; NaN if one of them failed or has no such metric."""
    if row is None or any(each is None or name not in each for each in row["values"]):
        return math.nan
    return fmean(each[name] for each in row["values"])


def _models(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What is known of other models, mean over the records."""
    found: dict[str, dict[str, list[float]]] = {}
    for each in records:
        for label, values in each["models"].items():
            for name, value in values.items():
                found.setdefault(label, {}).setdefault(name, []).append(value)
    return {
        label: {name: fmean(each) for name, each in values.items()}
        for label, values in found.items()
    }


def _verdict(
    test: Mapping[str, Sequence[float]], name: str, best: str | None, p: float | None
) -> str:
    if not _finite(test[name]):
        return "failed"
    if best is None:
        return "nothing to compare with"
    if p is None:
        return "one seed says nothing"
    if p >= LEVEL:
        return "no difference"
    return "better" if fmean(test[name]) > fmean(test[best]) else "worse"


def _finite(scores: Sequence[float]) -> bool:
    return all(map(math.isfinite, scores))


def _plain(scores: Sequence[float]) -> list[float | None]:
    return [each if math.isfinite(each) else None for each in scores]
