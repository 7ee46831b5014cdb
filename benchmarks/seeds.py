"""Prints how searches of several seeds run fastest: in turn, side by side, or as one batch.

`python benchmarks/seeds.py [diabetes digits sine bars] [--seeds 4] [--rounds N]`

`in turn` is one search after the other, each with all the threads it wants; `side by side` is what
`evoloss compare --jobs` does, a process for each core; `one batch` is a single search with the
population of all seeds together. That is the most that batching seeds could give, and more: seeds
have different initial weights and minibatches, which one search shares. Told is how many gradient
steps of base networks a second come out, for a large population has more duplicates, which are not
trained. Starting processes, importing and compiling are not counted. The three take turns, so that
other programs disturb all alike; the fastest round counts.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import torch

from evoloss.discovery.search import search

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "diabetes": ("diabetes", {"population": 25, "generations": 20}),
    "digits": ("digits", {"population": 25, "generations": 3}),
    "sine": ("sine", {"population": 25, "generations": 3}),
    "bars": ("workers:bars", {"population": 12, "generations": 2, "local_steps": 10,
                              "fitness_steps": 30}),
}  # fmt: skip


def searched(name: str, seed: int, times: int = 1, **changes: Any) -> int:
    """One search of random losses, and the gradient steps it took.

    times: how many seeds' populations it has.
    """
    spec, settings = CASES[name]
    settings = {**settings, "population": times * settings["population"], **changes}
    found = search(spec, seed=seed, method="random", finalists=0, **settings)
    return found.budget.steps


def warm(name: str, threads: int | None = None) -> None:
    """Imports and compiles whatever the case needs. threads: of torch, None for its own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
    searched(name, seed=0, generations=1, fitness_steps=2, local_steps=1)


def ways(name: str, seeds: int, pool: ProcessPoolExecutor) -> dict[str, Callable[[], int]]:
    """The three ways of the same searches; each tells its gradient steps."""
    numbers = range(1, 1 + seeds)
    return {
        "in turn": lambda: sum(searched(name, seed) for seed in numbers),
        "side by side": lambda: sum(pool.map(searched, [name] * seeds, numbers)),
        "one batch": lambda: searched(name, 1, seeds),
    }


def measured(name: str, seeds: int, rounds: int) -> dict[str, float]:
    """Gradient steps a second of each way, the best of some rounds."""
    jobs = os.cpu_count() or 1
    fresh = multiprocessing.get_context("spawn")
    warm(name)
    with ProcessPoolExecutor(jobs, fresh, initializer=warm, initargs=(name, 1)) as pool:
        list(pool.map(time.sleep, [1.0] * jobs))  # a process is started when it is first needed
        chosen = ways(name, seeds, pool)
        best = dict.fromkeys(chosen, 0.0)
        for _ in range(rounds):
            for way, run in chosen.items():
                begun = time.perf_counter()
                steps = run()
                best[way] = max(best[way], steps / (time.perf_counter() - begun))
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args(arguments)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{given.seeds} seeds, {os.cpu_count()} processors, load average {load}")
    for name in given.cases or CASES:
        best = measured(name, given.seeds, given.rounds)
        for way, rate in best.items():
            ratio = rate / best["in turn"]
            print(f"{name:10}{way:14}{rate:10,.0f} steps a second   ratio {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
