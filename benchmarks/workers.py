"""Prints how much faster searches are on 1 and 2 workers than without any.

`python benchmarks/workers.py [bars diabetes] [--rounds N]`

For each case: the same search without workers, on one and on two, in turn, so that other programs
on the machine disturb all alike; the fastest round of each counts. Time runs from the end of the
first generation, in which the workers start. `bars` is made up: 28 × 28
images with a bar at one of ten places.
"""

import argparse
import time
from typing import Any

# isort: off
import evoloss

# isort: on
import numpy as np

from evoloss.discovery.progress import Progress
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


def rate(spec: str, workers: int | None, generations: int, settings: dict[str, Any]) -> float:
    """Candidates a second, from the end of the first generation to that of the last."""
    saved: list[float] = []

    def note(progress: Progress) -> None:
        if progress.stage == "saved":
            saved.append(time.perf_counter())

    search(spec, workers=workers, generations=1 + generations, finalists=0, observer=note,
           **settings)  # fmt: skip
    return generations * settings["population"] / (saved[-1] - saved[0])


def run(name: str, rounds: int) -> None:
    """One case, printed."""
    spec, settings = CASES[name]
    best = dict.fromkeys(WAYS, 0.0)
    for _ in range(rounds):
        for way in WAYS:
            best[way] = max(best[way], rate(spec, way, GENERATIONS[name], settings))
    for way in WAYS:
        label = "no workers" if way is None else f"{way} worker{'s'[: way > 1]}"
        print(
            f"{name:10}{label:12}{best[way]:8.2f} candidates a second"
            f"   ratio {best[way] / best[None]:5.2f}",
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
