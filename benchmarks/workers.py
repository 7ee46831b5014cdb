"""Prints how much faster searches are on 1 and 2 workers than without any.

`python benchmarks/workers.py [bars diabetes] [--rounds N]`

For each case: the same search without workers, on one and on two, in turn, so that other programs
on the machine disturb all alike; the fastest round of each counts. Candidates a second are those of
the stages; the start of the workers is paid before, by a search of one generation that is not
counted, and is printed by itself. `bars` is made up: 28 × 28 images with a bar at one of ten
places.
"""

import argparse
import time
from typing import Any

# isort: off
import evoloss

# isort: on
import numpy as np

from evoloss.discovery.search import search
from evoloss.tasks.task import Task

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bars": ("workers:bars", {"population": 16, "local_steps": 10, "fitness_steps": 30}),
    "diabetes": ("diabetes", {"population": 25}),
}
GENERATIONS = {"bars": 1, "diabetes": 10}
WAYS = (None, 1, 2)
ROWS = 2000


def bars() -> Task:
    """Ten classes of noisy images, and LeNet-5."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, ROWS)
    x = rng.normal(0.0, 0.5, (ROWS, 1, 28, 28)).astype(np.float32)
    for image, place in zip(x[:, 0], y, strict=True):
        image[2 * place : 2 * place + 4, 4:24] += 1.0
    return evoloss.supervised(x, y, network="lenet5", name="bars")


def seconds_of(spec: str, workers: int | None, generations: int, settings: dict[str, Any]) -> float:
    """Wall time of a search from start to end."""
    started = time.perf_counter()
    search(spec, workers=workers, generations=generations, finalists=0, **settings)
    return time.perf_counter() - started


def run(name: str, rounds: int) -> None:
    """One case, printed."""
    spec, settings = CASES[name]
    generations = GENERATIONS[name]
    longest = {way: float("inf") for way in WAYS}
    shortest = dict(longest)
    for _ in range(rounds):
        for way in WAYS:
            one = seconds_of(spec, way, 1, settings)
            more = seconds_of(spec, way, 1 + generations, settings)
            shortest[way] = min(shortest[way], one)
            longest[way] = min(longest[way], more)
    count = generations * settings["population"]
    rates = {way: count / max(longest[way] - shortest[way], 1e-9) for way in WAYS}
    for way in WAYS:
        label = "no workers" if way is None else f"{way} worker{'s'[: way > 1]}"
        print(
            f"{name:10}{label:12}{rates[way]:8.2f} candidates a second   "
            f"ratio {rates[way] / rates[None]:5.2f}   first generation {shortest[way]:6.1f} s",
            flush=True,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        run(name, arguments.rounds)


if __name__ == "__main__":
    main()
