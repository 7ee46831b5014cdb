"""Prints what a very long search does to memory, open files, the store and a generation's time.

`python benchmarks/soak.py [--generations 20000] [--population 5]`: a search of the toy task
(`toy.py`), whose losses cost nothing to train, so that what is measured is the search itself. The
run is divided into ten parts; each line is one of them, with the ratio of its time per generation
to that of the second part (the first one still fills caches).
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from toy import Toy, ToySettings

from evoloss.discovery.loop import Run
from evoloss.discovery.progress import Progress
from evoloss.store import Store

PARTS = 10


@dataclass(frozen=True)
class Point:
    """The state after a part. seconds: of the part; memory: resident, MiB; files: open."""

    generations: int
    candidates: int
    seconds: float
    memory: float
    files: int
    store: int


def soak(directory: Path, generations: int, population: int, say=lambda point: None) -> list[Point]:
    """The points of a search in a new directory."""
    arena = Toy(ToySettings(generations=generations, population=population), random=True)
    about = {"task": "toy", "network": "none", "metric": "distance", "output": "identity",
             "higher_is_better": False}  # fmt: skip
    store = Store.create(directory, task=None, settings=arena.settings.to_json(), about=about)
    points: list[Point] = []
    began = time.perf_counter()

    def observer(progress: Progress) -> None:
        nonlocal began
        if progress.stage != "saved" or progress.generation % max(1, generations // PARTS):
            return
        now = time.perf_counter()
        points.append(
            Point(progress.generation, progress.candidates, now - began, _resident(),
                  len(os.listdir("/proc/self/fd")), (directory / "run.db").stat().st_size)
        )  # fmt: skip
        say(points[-1])
        began = time.perf_counter()

    Run(arena, store, observer).go()
    return points


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=20_000)
    parser.add_argument("--population", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keeps the run here")
    arguments = parser.parse_args()
    print("generations  candidates  ms a generation  resident MiB  files  bytes a candidate")

    def say(point: Point) -> None:
        part = arguments.generations // PARTS
        print(
            f"{point.generations:11,}  {point.candidates:10,}  {1e3 * point.seconds / part:15.2f}"
            f"  {point.memory:12.1f}  {point.files:5}  {point.store / point.candidates:17.0f}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        directory = arguments.out or Path(folder) / "run"
        points = soak(directory, arguments.generations, arguments.population, say)
    second, last = points[1], points[-1]
    grown = (last.memory - second.memory) * 2**20 / (last.candidates - second.candidates)
    print(
        "from the second part to the last: time per generation "
        f"× {last.seconds / second.seconds:.3f}, resident memory "
        f"× {last.memory / second.memory:.3f} ({grown:.0f} bytes a candidate), "
        f"open files {last.files - second.files:+d}, bytes a candidate in the store "
        f"× {last.store / last.candidates * second.candidates / second.store:.3f}"
    )


if __name__ == "__main__":
    main()
