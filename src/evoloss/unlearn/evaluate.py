"""What unlearning is worth, on questions that no choice was made by: found against hand-written.

Only this module uses the test part of the data, and only after a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evoloss.discovery.randomness import Purpose
from evoloss.execution.executor import Executor
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.contenders import Contender, trials
from evoloss.unlearn.recipes import Measured
from evoloss.unlearn.trials import Tick

_SEEDS = 1_000
"""Where the numbers of the adapters begin that only evaluation draws."""
SAMPLES = 5


@dataclass(frozen=True)
class Row:
    """One contender's outcome. values: one set of metrics a seed, None where training failed.

    weights: of the first seed's adapter; answers: to the forget questions, of the first seed.
    """

    contender: Contender
    values: tuple[Mapping[str, float] | None, ...]
    reasons: tuple[str, ...]
    weights: dict[str, Tensor] | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Several contenders on the test part, beside the model before unlearning and the retain model.

    questions, truths: of the forget set's test part.
    """

    rows: tuple[Row, ...]
    original: Measured
    retain: Measured | None
    questions: tuple[str, ...]
    truths: tuple[str, ...]
    objective: str


def evaluate(
    bench: Bench, contenders: Sequence[Contender], seeds: int = 3,
    tick: Tick = lambda share: None, executor: Executor | None = None,
) -> Evaluation:  # fmt: skip
    """Trains every contender on the whole forget set and measures it on the test part.

    All see the same new adapters and minibatches, seed by seed. executor: as of `trials`.
    """
    phase, groups = bench.testing, _groups(contenders)
    found: dict[int, list[Any]] = {at: [] for at in range(len(contenders))}
    done = 0
    for seed in range(_SEEDS, _SEEDS + seeds):
        start = bench.start_of(seed)
        for group in groups:
            chosen = [contenders[at] for at in group]
            some = trials(bench, phase, chosen, Purpose.EVALUATION, seed, executor)
            for at, tried in zip(group, some.run(start), strict=True):
                found[at].append(tried)
            done += len(group)
            tick(done / (seeds * len(contenders)))
    rows = tuple(_row(contenders[at], found[at]) for at in range(len(contenders)))
    openings = phase.prepared.sets["forget"].openings
    return Evaluation(
        rows,
        phase.original,
        phase.retain,
        tuple(each.question for each in openings),
        tuple(each.truth for each in openings),
        bench.settings.objective,
    )


def record(evaluation: Evaluation) -> dict[str, Any]:
    """Plain data, for the store and for tables."""
    others = {"before": evaluation.original, "retain model": evaluation.retain}
    models = {name: dict(each.values) for name, each in others.items() if each is not None}
    return {
        "kind": "unlearning",
        "objective": evaluation.objective,
        "models": models,
        "rows": [
            {
                "label": row.contender.label,
                "formula": row.contender.formula,
                "epochs": row.contender.epochs,
                "lr": row.contender.lr,
                "values": [None if each is None else dict(each) for each in row.values],
                "reasons": list(row.reasons),
            }
            for row in evaluation.rows
        ],
        "samples": _samples(evaluation),
    }


def _samples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Questions to forget, with the true answer, the one before and those after unlearning."""
    after = {row.contender.label: row.answers for row in evaluation.rows if row.answers}
    return [
        {
            "question": question,
            "truth": truth,
            "before": evaluation.original.answers[at],
            "after": {label: answers[at] for label, answers in after.items()},
        }
        for at, (question, truth) in enumerate(
            zip(evaluation.questions, evaluation.truths, strict=True)
        )
    ][:SAMPLES]


def _groups(contenders: Sequence[Contender]) -> list[list[int]]:
    """Those that can be trained side by side: all expressions, and each rival with itself."""
    groups: dict[str, list[int]] = {}
    for at, each in enumerate(contenders):
        groups.setdefault(each.rival, []).append(at)
    return list(groups.values())


def _row(contender: Contender, tried: Sequence[Any]) -> Row:
    return Row(
        contender,
        tuple(None if each.measured is None else each.measured.values for each in tried),
        tuple(each.reason for each in tried),
        tried[0].weights,
        () if tried[0].measured is None else tried[0].measured.answers,
    )
