"""A conformance suite for methods: `check_method("mine")` holds one to what the loop relies on.

For methods of one's own as for those of the library. Each check is a function of the method's name
that raises AssertionError with what is wrong; `check_method` runs all of them, in seconds.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.discovery.archive import Archive
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.loop import known_to_proposers
from evoloss.discovery.progress import Progress
from evoloss.discovery.result import Result
from evoloss.discovery.search import resume, search
from evoloss.discovery.settings import preset
from evoloss.discovery.supervised import Supervised
from evoloss.discovery.workbench import Workbench
from evoloss.errors import LossError, UserError
from evoloss.lang.expr import check
from evoloss.propose.proposer import Individual, Proposal
from evoloss.tasks.task import Data, Episode, Metric, Task, Training
from evoloss.wording import counted

_SMALL: dict[str, Any] = {
    "population": 8, "generations": 5, "local_steps": 3, "finalists": 2, "final_seeds": 1,
    "rejection_steps": 20, "fitness_seeds": 1,
}  # fmt: skip


def check_method(name: str, **settings: Any) -> None:
    """Runs every check on a registered method.

    settings: changes of the small searches, such as a population that the method needs.
    Raises AssertionError that names the method and the broken promise.
    """
    for promise in PROMISES:
        promise(name, settings)


def is_deterministic(name: str, settings: dict[str, Any]) -> None:
    """Equal seeds give equal histories, other seeds may give others."""
    first, second = (_searched(name, settings, seed=3) for _ in range(2))
    _same(name, first, second, "a second search with the same seed has another history")


def keeps_its_budget(name: str, settings: dict[str, Any]) -> None:
    """Never more than population × generations, nor a generation more than the steps allow."""
    wanted = _settings(name, settings)
    found = _searched(name, settings).history
    most = wanted.population * wanted.generations
    _promise(len(found) <= most, name, f"proposed {len(found)} losses where {most} were allowed")
    steps = sum(each.steps for each in found if each.generation == 0)
    if steps:
        one = _searched(name, {**settings, "max_steps": steps}).history
        _promise(
            all(each.generation == 0 for each in one),
            name,
            f"went on after {counted(steps, 'gradient step')}, which was its budget",
        )


def proposes_losses_only(name: str, settings: dict[str, Any]) -> None:
    """Every proposal is well typed and uses y and f; its parents are older than itself."""
    for first, proposals in _asked(name, settings, survivors=2):
        for proposal in proposals:
            try:
                check(proposal.expression)
            except LossError as error:
                raise AssertionError(f"method '{name}': {error}") from None
            older = all(parent < first for parent in proposal.parents)
            _promise(older, name, f"parents {proposal.parents} are not of an earlier generation")


def resumes(name: str, settings: dict[str, Any]) -> None:
    """A search that is broken off after any generation ends as if it had not been."""
    whole = _searched(name, settings)
    last = max(each.generation for each in whole.history)
    for stop in range(1, last + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            try:
                _searched(name, settings, out=run, observer=_stop_after(stop))
            except _Stop:
                resumed = resume(run, task=task())
                _same(
                    name, whole, resumed, f"resumed after {counted(stop, 'generation')}, it differs"
                )


def bears_failures(name: str, settings: dict[str, Any]) -> None:
    """It goes on when every one of its losses fails, and when only one of them does not."""
    most = _settings(name, settings).population
    for survivors in (0, 1):
        for _, proposals in _asked(name, settings, survivors):
            _promise(len(proposals) <= most, name, f"asked for {len(proposals)} losses, not {most}")
    try:
        found = search(task(broken=True), **_given(name, settings)).history
    except UserError:
        return  # nothing could be trained, and that was said
    _promise(
        all(each.error is None or math.isfinite(each.error) for each in found),
        name,
        "a metric of NaN became a score",
    )


def never_sees_test_data(name: str, settings: dict[str, Any]) -> None:
    """The test split is not asked for during a search."""
    _searched(name, settings)  # the task's test episodes raise


Promise = Callable[[str, dict[str, Any]], None]
PROMISES: tuple[Promise, ...] = (
    proposes_losses_only, is_deterministic, keeps_its_budget, resumes, bears_failures,
    never_sees_test_data,
)  # fmt: skip
"""The checks, in the order in which `check_method` runs them."""


def task(broken: bool = False) -> Task:
    """A regression of 64 rows on a network of 25 weights, whose test split cannot be read.

    broken: its metric is always NaN.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    y = (x @ torch.tensor([[1.0], [-2.0], [0.5]])).tanh()
    made = Task(
        name="conformance",
        episodes=_Sealed(Data(x[:40], y[:40]), Data(x[40:], y[40:])),
        network=lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)),
        network_name="small",
        output="identity",
        usual_loss="square(y - f)",
        metric=Metric("mse", _squared_error, batched=True),
        training=Training(lr=0.02, batch=16, steps=20, rejection_steps=20),
    )
    if broken:
        return replace(made, metric=Metric("nan", lambda f, y: math.nan))
    return made


def _squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean((-2, -1))


class _Sealed:
    """One data set without a test split."""

    distinct = 1

    def __init__(self, train: Data, validation: Data) -> None:
        self.episode = Episode(train, validation)

    def search(self, index: int) -> Episode:
        return self.episode

    def test(self, index: int) -> Episode:
        raise AssertionError("the test split was asked for during a search")


class _Stop(Exception):
    """Thrown into a search to break it off."""


def _stop_after(generations: int) -> Callable[[Progress], None]:
    def observer(progress: Progress) -> None:
        if progress.stage == "saved" and progress.generation == generations:
            raise _Stop

    return observer


def _given(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    from evoloss.discovery.presets import METHODS

    own = {key: value for key, value in _SMALL.items() if key not in METHODS[name]}
    return {**own, "method": name, **settings}


def _asked(
    name: str, settings: dict[str, Any], survivors: int
) -> Iterator[tuple[int, Sequence[Proposal]]]:
    """(id of the first, proposals) by generation; told that all but the first so many failed."""
    bench = Workbench(task(), _settings(name, settings))
    arena = Supervised(bench)
    known = known_to_proposers(bench.settings, Archive(bench.settings, arena.fingerprint))
    mind, first = arena.proposer(arena.space(known)), 0
    for generation in range(bench.settings.generations):
        proposals = mind.ask(generation)
        if not proposals:
            return
        yield first, proposals
        errors = [float(n) if n < survivors else None for n in range(len(proposals))]
        people = [
            Individual(first + n, each.expression, error)
            for n, (each, error) in enumerate(zip(proposals, errors, strict=True))
        ]
        mind.tell(generation, people)
        first += len(proposals)


def _settings(name: str, settings: dict[str, Any]) -> Any:
    return preset("fast", **_given(name, settings))


def _searched(name: str, settings: dict[str, Any], **more: Any) -> Result:
    return search(task(), **{**_given(name, settings), **more})


def _same(name: str, first: Result, second: Result, otherwise: str) -> None:
    pairs = zip(first.history, second.history, strict=False)
    equal = len(first.history) == len(second.history) and all(_equal(a, b) for a, b in pairs)
    _promise(equal and str(first.best) == str(second.best), name, otherwise)


def _equal(one: Candidate, other: Candidate) -> bool:
    if one.fate is Fate.FAILED:  # its weights may be NaN, which equals nothing
        return replace(one, phi=None) == replace(other, phi=None)
    return one == other


def _promise(kept: bool, name: str, otherwise: str) -> None:
    if not kept:
        raise AssertionError(f"method '{name}': {otherwise}")
