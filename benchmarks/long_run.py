"""Prints how long `resume`, `show` and `report` take on a run of any number of candidates.

`python benchmarks/long_run.py [resume show report] [--candidates 100000] [--out DIRECTORY]`

The run is written through the store's own interface without a search: random trees with weights,
of which a tenth each are duplicates, rejected and failed, broken off before its last generation.
It is one of `diabetes`, so that every command takes it. Each command is a process of its own and
timed from its start; `resume` until it begins with its first new generation.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from toy import ToySettings

from evoloss.discovery.archive import Archive
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.loop_settings import LoopSettings
from evoloss.discovery.settings import preset
from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Expr
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.weights import edge_count
from evoloss.propose.gp import GPSettings, random_expression, repair
from evoloss.store import Store
from evoloss.tasks.registry import load_task

FATES = (*[Fate.SCORED] * 4, *[Fate.RACED_OUT] * 3, Fate.REJECTED, Fate.FAILED, Fate.DUPLICATE)
STACKING = {"train": "dense", "pull_shared": "dense", "push": "dense", "threads": "1"}
RESUME = """
import sys
import evoloss
def begun(progress):
    print(progress.candidates, flush=True)
    raise KeyboardInterrupt
try:
    evoloss.resume(sys.argv[1], observer=begun)
except KeyboardInterrupt:
    pass
"""


def write(directory: Path, candidates: int, population: int = 25, spec: str | None = None) -> None:
    """A run with so many candidates, without its last generation.

    spec: its task; None for the toy, which lives in memory.
    """
    generations = candidates // population
    begun = _begun(spec, population=population, generations=generations + 1)
    archive = Archive(begun.settings, lambda loss: gradient_fingerprint(loss, "identity"))
    with Store.create(
        directory, task=begun.source, settings=begun.settings.to_json(), about=begun.about
    ) as store:
        for number in range(generations):
            made = generation(number, population)
            seconds = {"training": 1.0, "proposing": 0.1}
            store.commit(number, made, seconds, (), [archive.summary(each) for each in made])


@dataclass(frozen=True)
class _Begun:
    """What a new run is created with."""

    source: dict[str, Any] | None
    settings: LoopSettings
    about: dict[str, Any]


def _begun(spec: str | None, **sizes: int) -> _Begun:
    about = {"task": "toy", "network": "none", "metric": "distance", "output": "identity",
             "higher_is_better": False, "usual_loss": "square(y - f)"}  # fmt: skip
    if spec is None:
        return _Begun(None, ToySettings(**sizes), about)  # type: ignore[arg-type]
    task = load_task(spec)
    about |= {"task": task.name, "network": task.network_name, "metric": task.metric.name,
              "usual_loss": task.usual_loss, "stacking": STACKING}  # fmt: skip
    return _Begun(task.source, preset("fast", **sizes), about)


def generation(number: int, population: int) -> list[Candidate]:
    """The candidates of a generation, the same ones every time."""
    return [_candidate(number, index, population) for index in range(population)]


def _candidate(number: int, index: int, population: int) -> Candidate:
    id = number * population + index
    rng = np.random.default_rng(id)
    fate = FATES[id % 10] if id >= 10 else Fate.SCORED
    trained, duplicate = fate in (Fate.SCORED, Fate.RACED_OUT), fate is Fate.DUPLICATE
    expression = _loss(np.random.default_rng(0) if duplicate else rng)
    earlier = max(0, number - 1) * population
    parents = rng.integers(earlier, earlier + population, 2).tolist() if number else []
    return Candidate(
        id, number, index, "crossover" if number else "initial", tuple(parents), expression,
        canonical_text(expression),
        tuple(rng.lognormal(0.0, 0.1, edge_count(expression)).tolist()) if trained else None,
        fate, "" if fate is Fate.SCORED else "as in a long search",
        float(rng.lognormal()) if trained else None, 0 if duplicate else None,
        0 if duplicate else 500,
    )  # fmt: skip


def _loss(rng: np.random.Generator) -> Expr:
    settings = GPSettings()
    return repair(settings, random_expression(settings, rng, (2, 4)), rng)


def seconds(*command: object) -> float:
    """Of a process, until it writes its first line or ends."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - start
        process.communicate()
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="resume, show, report")
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keeps the run, or takes the one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, page = arguments.out or Path(folder) / "run", Path(folder) / "report.html"
        if not run.exists():
            write(run, arguments.candidates, spec="diabetes")
        print(f"store: {(run / 'run.db').stat().st_size / 2**20:.1f} MiB", flush=True)
        commands = {
            "resume": ("-c", RESUME, run),
            "show": ("-m", "evoloss", "show", run),
            "report": ("-m", "evoloss", "report", run, "--output", page),
        }
        for name in arguments.commands or commands:
            found = [seconds(*commands[name]) for _ in range(arguments.rounds)]
            print(f"{name}: {' '.join(f'{each:.2f}' for each in found)} s", flush=True)
        if page.exists():
            print(f"page: {page.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
