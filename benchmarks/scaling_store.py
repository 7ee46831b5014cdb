"""Cost curves of a stored run: saving, opening, resuming and showing it, against its candidates.

The runs are made up (`long_run.py`), and lie in a folder where later curves find them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import long_run
from curves import Curve, Measure, Seconds, timed
from toy import Toy, ToySettings
from typer.testing import CliRunner, Result

from evoloss.cli import app
from evoloss.discovery.loop import Run
from evoloss.store import Store

SIZES = (1_000, 10_000, 100_000)
QUICK = (100, 200)
POPULATION = 25


def curves(folder: Path) -> dict[str, Curve]:
    """Their runs are in the folder, or come there."""
    every = {
        "commit": (f"saving a generation of {POPULATION}", SIZES, _commit),
        "open": ("opening a run", SIZES, _open),
        "resume": ("resuming a run, to its first new generation", SIZES, _resume),
        "show": ("evoloss show", SIZES, _show),
        "report": ("evoloss report", SIZES, _report),
    }
    return {
        name: Curve(what, "candidates", sizes, QUICK, partial(make, folder))
        for name, (what, sizes, make) in every.items()
    }


def written(folder: Path, size: int) -> Path:
    """The directory of a run of so many candidates."""
    directory = folder / f"run-{size}"
    if not directory.exists():
        unfinished = folder / f"unfinished-{size}"
        shutil.rmtree(unfinished, ignore_errors=True)
        long_run.write(unfinished, size, POPULATION)
        unfinished.rename(directory)
    return directory


@contextmanager
def _commit(folder: Path, size: int) -> Iterator[Measure]:
    """The first generation again and again, to a copy, which grows by it."""
    growing = folder / f"growing-{size}"
    shutil.rmtree(growing, ignore_errors=True)
    shutil.copytree(written(folder, size), growing)
    with Store.open(growing, write=True) as store:
        first, summaries = store.candidates(0), store.summaries()[:POPULATION]
        numbers = count(store.generations)

        def measure() -> Seconds:
            number = next(numbers)
            ids = range(number * POPULATION, (number + 1) * POPULATION)
            made = [replace(each, id=id, generation=number)
                    for id, each in zip(ids, first, strict=True)]  # fmt: skip
            keys = [each._replace(id=id) for id, each in zip(ids, summaries, strict=True)]
            return timed(lambda: store.commit(number, made, {"training": 1.0}, (), keys))

        yield measure


@contextmanager
def _open(folder: Path, size: int) -> Iterator[Measure]:
    directory = written(folder, size)
    yield lambda: timed(lambda: Store.open(directory, write=False).close())


@contextmanager
def _resume(folder: Path, size: int) -> Iterator[Measure]:
    directory = written(folder, size)

    def resumed() -> None:
        with Store.open(directory, write=True) as store:
            Run(Toy(ToySettings.from_json(store.settings)), store, None)

    yield lambda: timed(resumed)


@contextmanager
def _show(folder: Path, size: int) -> Iterator[Measure]:
    yield partial(_command, "show", str(written(folder, size)))


@contextmanager
def _report(folder: Path, size: int) -> Iterator[Measure]:
    page = folder / f"report-{size}.html"
    yield partial(_command, "report", str(written(folder, size)), "--output", str(page))


def _command(*arguments: str) -> Seconds:
    """What a command takes in this process, which has made its imports."""
    runner = CliRunner()
    results: list[Result] = []
    seconds = timed(lambda: results.append(runner.invoke(app, arguments)))
    if results[0].exit_code:
        raise RuntimeError(f"evoloss {' '.join(arguments)}: {results[0].output}")
    return seconds
