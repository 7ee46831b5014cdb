"""Prints how much faster searches are on workers and on Ray than without.

`python benchmarks/workers.py [bars diabetes] [--ways none,1,2] [--rounds N]`

For each case: the same search without workers, on one and on two, in turn, so that other programs
on the machine disturb all alike; the fastest round of each counts. `--ways none,2,ray:1,ray:2`
adds Ray clusters of this machine that are told to have so many processors, `whole` a search without
workers and without shards, a whole generation in one stack. Time runs from the end
of the first generation, in which the workers start. `bars` is made up: 28 × 28 images with a bar at
one of ten places.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# isort: off
import evoloss

# isort: on
import numpy as np

from evoloss.discovery.progress import Progress
from evoloss.discovery.search import search
from evoloss.tasks.task import Task

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bars": ("workers:bars", {"population": 25, "local_steps": 10, "fitness_steps": 30}),
    "diabetes": ("diabetes", {"population": 25}),
}
GENERATIONS = {"bars": 1, "diabetes": 10}
WAYS = "none,1,2"
ROWS = 2000


def bars(rows: int = ROWS, **options: Any) -> Task:
    """Ten classes of noisy images, and LeNet-5. options: as of `evoloss.supervised`."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, rows)
    x = rng.normal(0.0, 0.5, (rows, 1, 28, 28)).astype(np.float32)
    for image, place in zip(x[:, 0], y, strict=True):
        image[2 * place : 2 * place + 4, 4:24] += 1.0
    return evoloss.supervised(x, y, network="lenet5", name="bars", **options)


@contextmanager
def done_by(way: str) -> Iterator[dict[str, Any]]:
    """The arguments of a search that is done this way: `none`, `whole`, a number of workers or
    `ray:N`.
    """
    if way == "whole":
        yield {"shard": None}
        return
    if not way.startswith("ray:"):
        yield {"workers": None if way == "none" else int(way)}
        return
    import ray

    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "EVOLOSS_THREADS": "1"}
    ray.init(
        address="local", num_cpus=int(way.removeprefix("ray:")), include_dashboard=False,
        log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables},
    )  # fmt: skip
    try:
        yield {"ray": "local"}
    finally:
        ray.shutdown()


def rate(spec: str, way: str, generations: int, settings: dict[str, Any]) -> float:
    """Candidates a second, from the end of the first generation to that of the last."""
    saved: list[float] = []

    def note(progress: Progress) -> None:
        if progress.stage == "saved":
            saved.append(time.perf_counter())

    with done_by(way) as workers:
        search(spec, generations=1 + generations, finalists=0, observer=note, **workers, **settings)
    return generations * settings["population"] / (saved[-1] - saved[0])


def run(name: str, ways: Sequence[str], rounds: int) -> None:
    """One case, printed."""
    spec, settings = CASES[name]
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for way in ways:
            best[way] = max(best[way], rate(spec, way, GENERATIONS[name], settings))
    for way in ways:
        print(
            f"{name:10}workers: {way:8}{best[way]:8.2f} candidates a second"
            f"   ratio {best[way] / best[ways[0]]:5.2f}",
            flush=True,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--ways", default=WAYS)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        run(name, arguments.ways.split(","), arguments.rounds)


if __name__ == "__main__":
    main()
