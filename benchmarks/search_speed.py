"""Prints how much faster a search is than evaluating its candidates one at a time.

`python benchmarks/search_speed.py [diabetes-linear diabetes-mlp digits mnist] [--generations N]`

For each case: a real search by evoloss, then the plain implementation (`baseline.py`) on a random
sample of that search's own candidates, in the same process. The baseline is charged only for the
candidates that a one-at-a-time search would evaluate: duplicates by text cost it nothing either.
"""

import argparse
import math
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait, for both sides alike

# isort: on
import baseline
import torch

from evoloss.discovery.candidate import Candidate
from evoloss.discovery.search import search
from evoloss.discovery.settings import Settings
from evoloss.discovery.workers import workers_of
from evoloss.lang.text import to_text
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task


@dataclass(frozen=True)
class Case:
    """A search to time. threads: torch threads that suit the baseline best (see README.md)."""

    task: str
    network: str | None
    preset: str
    population: int
    generations: int
    sample: int
    threads: int
    reach: float


CASES = {
    "diabetes-linear": Case("diabetes", "linear", "paper", 25, 50, 24, 1, 40.0),
    "diabetes-mlp": Case("diabetes", "mlp:64,64", "paper", 25, 50, 16, 1, 10.0),
    "digits": Case("digits", "mlp:64,64", "paper", 25, 50, 16, 1, 8.0),
    "mnist": Case("mnist", "lenet5", "fast", 25, 2, 6, 2, 4.0),
}


def run(name: str, case: Case, data_dir: str | None) -> None:
    task = load_task(case.task, network=case.network, data_dir=data_dir)
    # On as many workers as the command line takes.
    workers = workers_of(task, Settings(population=case.population))
    settings: dict[str, Any] = {"population": case.population, "workers": workers}
    search(task, preset=case.preset, generations=1, local_steps=2, fitness_steps=2, **settings)
    started = time.perf_counter()
    result = search(task, preset=case.preset, generations=case.generations, finalists=0, **settings)
    ours = time.perf_counter() - started
    theirs = baseline_seconds(result.history, task, case)
    fates = ", ".join(f"{n} {fate}" for fate, n in Counter(c.fate for c in result.history).items())
    hourly = len(result.history) * 3600
    print(
        f"{name}: {len(result.history)} candidates ({fates})\n"
        f"  evoloss {ours:8.1f} s   {hourly / ours:10,.0f} candidates an hour\n"
        f"  plain   {theirs:8.1f} s   {hourly / theirs:10,.0f} candidates an hour"
        f"   (estimated from {case.sample} of them)\n"
        f"  ratio   {theirs / ours:8.1f}     (to reach: {case.reach:g})",
        flush=True,
    )


def baseline_seconds(history: tuple[Candidate, ...], task: Task, case: Case) -> float:
    """What the plain implementation would take for the candidates that are new by their text."""
    settings = replace(baseline.settings_of(task), rejection_steps=task.training.rejection_steps)
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    mean, texts, _ = baseline_mean(history, settings, case.sample)
    torch.set_num_threads(threads)
    return mean * texts


def baseline_mean(
    history: tuple[Candidate, ...], settings: baseline.Settings, sample: int,
    limit: float = math.inf,
) -> tuple[float, int, int]:  # fmt: skip
    """Its seconds for a candidate, how many are new by their text, and how many were evaluated.

    limit: seconds after which no further candidate of the sample is begun.
    """
    texts = list(dict.fromkeys(to_text(each.expression) for each in history))
    baseline.evaluate_candidate("square(y - f)", replace(settings, fitness_steps=5))
    seconds: list[float] = []
    for text in random.Random(0).sample(texts, min(sample, len(texts))):
        if sum(seconds) > limit:
            break
        seconds.append(sum(baseline.evaluate_candidate(text, settings)["seconds"].values()))
    return statistics.fmean(seconds), len(texts), len(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--generations", type=int, help="instead of the case's own")
    parser.add_argument("--data-dir", help="where mnist lies")
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        case = CASES[name]
        if arguments.generations:
            case = replace(case, generations=arguments.generations)
        run(name, case, arguments.data_dir)


if __name__ == "__main__":
    main()
