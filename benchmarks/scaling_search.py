"""Cost curves of a search: against the size of a generation, of its losses, batches and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from curves import Curve, Measure, Seconds, timed
from toy import Toy, ToySettings

import evoloss
from evoloss.discovery.fitness import fitness
from evoloss.discovery.loop import Run
from evoloss.discovery.progress import Progress
from evoloss.discovery.search import search
from evoloss.discovery.settings import preset
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Workbench
from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Call, Expr, Input
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.ops import EVOMAL_FUNCTIONS, OPERATORS
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task, Training

SHORT = {"local_steps": 25, "rejection_steps": 100, "fitness_steps": 50, "finalists": 0}
"""A tenth of the usual steps: what is asked is how cost grows, not what it is."""
LOSSES = 10
BRED = 2
"""Generations that are timed: those after the first, which is drawn at random."""
ROWS, FEATURES = 8192, 10


class _Clock:
    """An observer that notes when generations end."""

    def __init__(self) -> None:
        self.saved: list[Seconds] = []

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "saved":
            self.saved.append(Seconds.now())

    @property
    def seconds(self) -> Seconds:
        """Of a generation after the first."""
        return self.saved[-1].since(self.saved[0], len(self.saved) - 1)


@contextmanager
def _generation(population: int) -> Iterator[Measure]:
    """Of a search on diabetes; every round is another seed."""
    task, seeds = load_task("diabetes"), count()

    def measure() -> Seconds:
        clock = _Clock()
        search(task, seed=next(seeds), population=population, generations=1 + BRED, observer=clock,
               **SHORT)  # fmt: skip
        return clock.seconds

    yield measure


@contextmanager
def _driver(population: int) -> Iterator[Measure]:
    """The same of a task whose trainings cost nothing: proposals, forms, fingerprints, archive."""
    seeds = count()

    def measure() -> Seconds:
        clock = _Clock()
        settings = ToySettings(population=population, generations=1 + BRED, seed=next(seeds))
        Run(Toy(settings), None, clock).go()
        return clock.seconds

    yield measure


def tree(nodes: int, rng: np.random.Generator) -> Expr:
    """A random tree of evolved functions of exactly so many nodes; its leaves are inputs."""
    if nodes == 1:
        return Input("yf"[rng.integers(2)])
    arities = [1] if nodes == 2 else [1, 2]
    arity = arities[rng.integers(len(arities))]
    names = [name for name in EVOMAL_FUNCTIONS if OPERATORS[name].arity == arity]
    left = nodes - 1 if arity == 1 else int(rng.integers(1, nodes - 1))
    sizes = [left] if arity == 1 else [left, nodes - 1 - left]
    return Call(names[rng.integers(len(names))], tuple(tree(each, rng) for each in sizes))


def trees(nodes: int, number: int = LOSSES) -> list[Expr]:
    """The same ones every time."""
    return [tree(nodes, np.random.default_rng((nodes, index))) for index in range(number)]


def tuned_and_trained(bench: Workbench, losses: Sequence[Expr]) -> Callable[[], None]:
    """Tunes and trains these losses."""

    def work() -> None:
        with bench.threads():
            tune(bench, losses, lambda share: None)
            fitness(bench, losses, bench.fitness_trials, racing=False)

    return work


@contextmanager
def _timed(work: Callable[[], object]) -> Iterator[Measure]:
    yield lambda: timed(work)


def _nodes(nodes: int) -> Any:
    bench = Workbench(load_task("digits", network="linear"), preset("fast", **SHORT))
    return _timed(tuned_and_trained(bench, trees(nodes)))


def _forms(nodes: int) -> Any:
    losses = trees(nodes, 100)
    return _timed(lambda: [canonical_text(each) for each in losses])


def _fingerprints(nodes: int) -> Any:
    losses = trees(nodes, 100)
    return _timed(lambda: [gradient_fingerprint(each, "softmax") for each in losses])


def made_up(classes: int, batch: int) -> Task:
    """Normal inputs; one real target, or as many classes as asked for."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = x[:, 0] * x[:, 1] if classes == 1 else np.arange(ROWS) % classes
    training = Training(steps=50, lr=0.01, batch=batch)
    return evoloss.supervised(x, y, network="mlp:64,64", name="made up", training=training)


def _batch(batch: int) -> Any:
    bench = Workbench(made_up(1, batch), preset("fast", **SHORT))
    return _timed(tuned_and_trained(bench, trees(15)))


def _classes(classes: int) -> Any:
    bench = Workbench(made_up(classes, 128), preset("fast", **SHORT))
    return _timed(tuned_and_trained(bench, trees(15)))


TRAINED = f"tuning and training {LOSSES} losses"
POPULATIONS, NODES = (10, 32, 100, 316, 1000), (3, 7, 15, 31, 63)
BATCHES, CLASSES = (8, 32, 128, 512, 2048), (2, 8, 32, 128, 512)
CURVES = {
    "population": Curve("a generation on diabetes", "losses", POPULATIONS, (2, 4), _generation),
    "driver": Curve("a generation without trainings", "losses", POPULATIONS, (2, 4), _driver),
    "nodes": Curve(f"{TRAINED}, digits, linear", "nodes a loss", NODES, (3, 7), _nodes),
    "form": Curve("canonical forms of 100 losses", "nodes a loss", NODES, (3, 7), _forms),
    "fingerprint": Curve("fingerprints of 100", "nodes a loss", NODES, (3, 7), _fingerprints),
    "batch": Curve(f"{TRAINED}, 2 × 64 units", "rows a batch", BATCHES, (8, 16), _batch),
    "classes": Curve(f"{TRAINED}, 2 × 64 units", "classes", CLASSES, (2, 4), _classes),
}
