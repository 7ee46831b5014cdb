"""Prints what the found losses are worth on test data, over several searches with different seeds.

`python benchmarks/quality.py [sine diabetes digits names mnist] [--seeds 5] [--data-dir DIR]`

For each task and seed: a search, then fresh networks trained with the found loss, with the usual
one, and with multiples of the usual one. A multiple of a loss is nothing but another learning
rate, so a found loss has shown something only where it beats the best multiple as well; that one
is chosen by the test scores themselves, which favours it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evoloss.discovery.comparison import compare
from evoloss.discovery.evaluate import evaluate
from evoloss.discovery.loop import search
from evoloss.lang.expr import Const, Expr, call
from evoloss.lang.parse import parse
from evoloss.tasks.registry import load_task


@dataclass(frozen=True)
class Case:
    """A task, the settings of its searches, and its meta-test.

    trainings: per search; factors: the learning rates that the usual loss is tried with as well.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    trainings: int = 5
    factors: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 32.0)
    takes_data: bool = False


CASES = {
    "diabetes": Case({"generations": 50}),
    "sine": Case({"generations": 50}),
    "digits": Case({"generations": 30}),
    "mnist": Case(
        {"population": 12, "generations": 3, "local_steps": 50, "finalists": 0},
        steps=2000, trainings=1, factors=(4.0, 8.0), takes_data=True,
    ),
    "names": Case(
        {"population": 12, "generations": 3, "local_steps": 25, "finalists": 0},
        trainings=1, factors=(4.0, 8.0), takes_data=True,
    ),
}  # fmt: skip


def run(name: str, case: Case, seeds: int, data_dir: str | None) -> None:
    task = load_task(name, data_dir=data_dir if case.takes_data else None)
    usual = parse(task.usual_loss)
    rivals: dict[str, Expr] = {"usual": usual}
    rivals |= {f"{k:g} × usual": call("mul", Const(k), usual) for k in case.factors}
    scores: dict[str, list[float]] = {label: [] for label in ("found", *rivals)}
    metric = task.metric
    print(f"{name}: {metric.name} on test data, {case.settings}", flush=True)
    for seed in range(seeds):
        started = time.perf_counter()
        result = search(task, preset="fast", seed=seed, **case.settings)
        searched = time.perf_counter() - started
        losses = {"found": result.best.expression, **rivals}
        found = evaluate(task, losses, seeds=case.trainings, steps=case.steps, seed=seed)
        for row in found.rows:
            scores[row.label].append(statistics.fmean(row.scores))
        print(
            f"  seed {seed}: found {scores['found'][-1]:.4f}, usual {scores['usual'][-1]:.4f}"
            f" ({searched:.0f} s, validation {metric.shown(result.best.error):.4f})"
            f"  {result.best}",
            flush=True,
        )
    report(scores, metric.higher_is_better)


def report(scores: dict[str, list[float]], higher_is_better: bool) -> None:
    """Mean and standard deviation over the searches, and paired tests against the found losses."""
    sign = -1.0 if higher_is_better else 1.0
    factors = [label for label in scores if "×" in label]
    best = min(factors, key=lambda label: _order(sign, scores[label]))
    for label in ("found", "usual", best):
        line = f"  {label:12} {statistics.fmean(scores[label]):.4f}"
        line += f" ± {statistics.stdev(scores[label]):.4f}" if len(scores[label]) > 1 else ""
        if label != "found":
            test = compare(scores["found"], scores[label], higher_is_better=higher_is_better)
            shown = "none" if test.p is None else f"{test.p:.3f}"
            line += f"   the found losses are: {test.verdict} (paired t-test, p {shown})"
        print(line, flush=True)


def _order(sign: float, values: Sequence[float]) -> float:
    mean = sign * statistics.fmean(values)
    return mean if math.isfinite(mean) else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-dir", help="folder of mnist.npz and of the names' text files")
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        run(name, CASES[name], arguments.seeds, arguments.data_dir)


if __name__ == "__main__":
    main()
