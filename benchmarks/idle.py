"""Prints how long workers wait for each other at the rungs of a race, and for the driver.

`python benchmarks/idle.py [bars digits] [--workers 2] [--generations 3] [--asynchronous]`

A search on a pool, whose calls are watched. A call hands out shards and ends with the last of them;
a worker that has none left waits. What all workers wait, as a share of the time they are there,
is printed for each kind of call; between calls, the driver works and all of them wait. The first
generation, in which workers start, does not count. With `--asynchronous` a generation is one call.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import workers

from evoloss.discovery.loop import Run
from evoloss.discovery.progress import Progress
from evoloss.discovery.settings import preset
from evoloss.discovery.supervised import Supervised
from evoloss.discovery.workbench import Workbench
from evoloss.discovery.workers import SHARD, executor
from evoloss.execution.attempts import Attempt
from evoloss.execution.crew import Crew
from evoloss.execution.executor import Fault, Plain, Tick
from evoloss.execution.staff import Staff
from evoloss.tasks.registry import load_task

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bars": workers.CASES["bars"],
    "digits": ("digits", {"population": 25}),
}


class Watched:
    """A pool whose calls are timed. spans, busy: seconds by call, of the driver and of workers."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._ask: Callable[..., list[Plain]] = crew.ask
        crew.ask = self._asked  # type: ignore[method-assign]
        self.reset()

    def reset(self) -> None:
        """Forgets what was."""
        self.spans: dict[str, float] = defaultdict(float)
        self.busy: dict[str, float] = defaultdict(float)
        self.began = time.perf_counter()

    def _asked(self, job: Mapping[str, Plain], seconds: float, attempt: Attempt) -> list[Plain]:
        begin = time.perf_counter()
        try:
            return self._ask(job, seconds, attempt)
        finally:
            self.busy[_kind(job["call"], job["common"])] += time.perf_counter() - begin

    def run(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain | Fault]:
        """See `Executor`."""
        begin = time.perf_counter()
        try:
            return self.crew.run(call, items, common, tick)
        finally:
            self.spans[_kind(call, common)] += time.perf_counter() - begin

    def close(self) -> None:
        self.crew.close()


def _kind(call: str, common: Mapping[str, Plain]) -> str:
    if call != "train":
        return call if call != "race" else "train, asynchronously"
    return f"train {common['begin']} to {common['end']}"


def watched(
    name: str, count: int, generations: int, asynchronous: bool
) -> tuple[Watched, float, int]:
    """A case's search on so many workers, its seconds after the first generation, and its steps."""
    spec, settings = CASES[name]
    chosen = preset(
        "fast", shard=SHARD, generations=1 + generations, finalists=0, asynchronous=asynchronous,
        **settings,
    )  # fmt: skip
    bench = Workbench(load_task(spec), chosen)
    with executor(bench, Staff(count)) as crew:
        pool = Watched(crew)  # type: ignore[arg-type]
        ended = 0.0

        def note(progress: Progress) -> None:
            nonlocal ended
            if progress.stage == "saved":
                ended = time.perf_counter()
                if progress.generation == 1:
                    pool.reset()

        found = Run(Supervised(bench, pool), None, note).go().history
    return pool, ended - pool.began, sum(each.steps for each in found if each.generation)


def report(name: str, count: int, generations: int, asynchronous: bool) -> None:
    pool, seconds, steps = watched(name, count, generations, asynchronous)
    print(f"{name}, {count} workers, {generations} generations of {CASES[name][1]['population']}")
    print(f"{seconds:.1f} seconds, {steps:,} gradient steps, {steps / seconds:,.0f} a second")
    print(f"{'':22} {'share of time':>14} {'workers idle':>13}")
    for kind, span in pool.spans.items():
        idle = 1.0 - pool.busy[kind] / (count * span)
        print(f"{kind:22} {span / seconds:14.1%} {idle:13.1%}")
    calls = sum(pool.spans.values())
    print(f"{'between calls':22} {1.0 - calls / seconds:14.1%} {1.0:13.1%}")
    rungs = sum(span - pool.busy[kind] / count for kind, span in pool.spans.items()
                if kind.startswith("train"))  # fmt: skip
    idle = 1.0 - sum(pool.busy.values()) / (count * seconds)
    print(f"idle in all {idle:.1%}; at rungs and at the end of trainings {rungs / seconds:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--asynchronous", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        report(name, arguments.workers, arguments.generations, arguments.asynchronous)
    print("load average " + " ".join(f"{each:.1f}" for each in os.getloadavg()))


if __name__ == "__main__":
    main()
