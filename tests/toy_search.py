"""The searches of `benchmarks/toy.py`, for several test modules."""

import importlib
import sys
from pathlib import Path

from evoloss.discovery.loop import Run
from evoloss.store import Store

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark(name: str):
    """A module of the benchmarks, which are no package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


toy = benchmark("toy")


def searched(directory=None, observer=None, random=False, **settings):
    """The result of a search, kept in a directory or in memory."""
    arena = toy.Toy(toy.ToySettings(**settings), random)
    store = None
    if directory is not None:
        about = {"task": "toy", "network": "none", "metric": "distance", "output": "identity",
                 "higher_is_better": False}  # fmt: skip
        store = Store.create(directory, task=None, settings=arena.settings.to_json(), about=about)
    return Run(arena, store, observer).go()


def resumed(directory, observer=None):
    """The result of the stored search, continued."""
    store = Store.open(directory, write=True)
    arena = toy.Toy(toy.ToySettings.from_json(store.settings))
    return Run(arena, store, observer).go()
