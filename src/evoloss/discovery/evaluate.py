"""Meta-testing: base networks trained under several losses alike, scored once on the test split.

Only this module asks a task for its test episodes, and only after a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evoloss.discovery.fitness import fitness
from evoloss.discovery.randomness import Purpose
from evoloss.discovery.settings import Settings
from evoloss.discovery.workbench import Workbench
from evoloss.errors import UserError
from evoloss.lang.expr import Expr
from evoloss.tasks.task import Task


@dataclass(frozen=True)
class Row:
    """One loss's outcome. scores: the metric's own values, one a seed; NaN if training failed."""

    label: str
    expression: Expr
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """Several losses on the same test data, seeds and number of training steps."""

    task: str
    metric: str
    higher_is_better: bool
    steps: int
    rows: tuple[Row, ...]


def evaluate(
    task: Task,
    losses: Mapping[str, Expr],
    *,
    seeds: int = 5,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Evaluation:
    """Trains fresh networks under each loss and scores them on the test split.

    All losses see the same initial weights and minibatches, so that their scores can be compared
    seed by seed. A seed of a few-shot task is the mean over `episodes_per_fitness` episodes.
    steps: of SGD; None takes the task's own. seed: other seeds, other trainings. device: as of a
    search.
    Raises: UserError for fewer than one seed or step.
    """
    if seeds < 1:
        raise UserError(f"{seeds} seeds: give at least 1")
    if steps is not None and steps < 1:
        raise UserError(f"{steps} training steps: give at least 1")
    settings = Settings(
        seed=seed, population=max(2, len(losses)), fitness_steps=steps, device=device
    )
    bench = Workbench(task, settings)
    expressions = list(losses.values())
    scores: list[list[float]] = [[] for _ in expressions]
    with bench.threads():
        for repeat in range(seeds):
            trials = [
                bench.trial(Purpose.EVALUATION, repeat * task.episodes_per_fitness + number)
                for number in range(task.episodes_per_fitness)
            ]
            for row, score in zip(
                scores, fitness(bench, expressions, trials, racing=False), strict=True
            ):
                row.append(task.metric.shown(score.error))
    return Evaluation(
        task=task.name,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        steps=bench.fitness_steps,
        rows=tuple(
            Row(label, expr, tuple(row))
            for (label, expr), row in zip(losses.items(), scores, strict=True)
        ),
    )
