"""The parts of `gpu.py` that search: whole budgets, and a generation with its speed parts off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import baseline
import limits
import torch
from gpu_rows import Plan, Row, medians, memory, multiplied, rates, reached, seconds
from scaling_search import trees, tuned_and_trained
from search_speed import baseline_mean
from workers import bars

from evoloss.discovery.search import search
from evoloss.discovery.settings import preset
from evoloss.discovery.workbench import Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.errors import UserError
from evoloss.tasks.images import PLAIN
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task

POPULATION, GENERATIONS = 25, 50
"""The published budget (Raymond et al. 2023)."""
FASTER = 100
"""How many times the throughput of one candidate at a time is wanted."""
IMAGES = 70_000
LARGE = 8192
SAMPLE = 6
"""Candidates that the baseline evaluates, of those of the search."""


@dataclass(frozen=True)
class Case:
    """A budget. target: seconds for all of it; limit: seconds after which a search is broken off.

    plain: seconds after which the baseline begins no further candidate.
    """

    name: str
    network: str
    target: float
    limit: float
    plain: float
    task: Callable[[Plan], tuple[Task, str]]


def images(plan: Plan) -> tuple[Task, str]:
    """MNIST where it is at hand, or images of its shape; and which."""
    if plan.data_dir is not None:
        try:
            return load_task("mnist", network="lenet5", data_dir=plan.data_dir), "MNIST"
        except UserError as error:
            why = f" ({error})"
    else:
        why = " (no --data-dir)"
    rows = 300 if plan.tiny else IMAGES
    made = replace(bars(rows, training=PLAIN), source=None)
    return made, f"{rows:,} made-up images of MNIST's shape{why}"


def diabetes(plan: Plan) -> tuple[Task, str]:
    units = 16 if plan.tiny else 1000
    return load_task("diabetes", network=f"mlp:{units},{units}"), "diabetes"


MNIST = Case("MNIST, LeNet-5", "LeNet-5", 120.0, 150.0, 40.0, images)
DIABETES = Case("diabetes, 2 × 1,000 units", "2 × 1,000 units", 60.0, 80.0, 30.0, diabetes)


def budget(case: Case) -> Callable[[Plan], Iterator[Row]]:
    """The part that searches with the published budget and compares with the baseline."""

    def part(plan: Plan) -> Iterator[Row]:
        task, data = case.task(plan)
        sizes = _sizes(plan)
        first = {**sizes, "generations": 1, "local_steps": 2, "fitness_steps": 2}
        began = seconds(lambda: _searched(task, plan, first), plan.device)
        yield Row("first use: compiling, loading", began, "s", data)
        with memory(plan.device) as peak:
            begun = time.perf_counter()
            history = _searched(task, plan, {**sizes, "max_seconds": case.limit})
            took = time.perf_counter() - begun
            most = peak()
        yield from _throughput(case, plan, task, history, took)
        yield Row("memory of tensors, at most", most, "GiB")
        yield from _operations(plan, lambda: task)

    return part


def _sizes(plan: Plan) -> dict[str, Any]:
    """The settings of a search with this share of the budget."""
    if plan.tiny:
        return {"population": 4, "generations": 2, "local_steps": 3, "fitness_steps": 5,
                "rejection_steps": 10}  # fmt: skip
    return {"population": POPULATION, "generations": max(1, round(GENERATIONS * plan.share))}


def _searched(task: Task, plan: Plan, settings: dict[str, Any]) -> tuple[Any, ...]:
    """The history of a search by the published procedure, without savings."""
    found = search(task, preset="paper", device=str(plan.device), **settings)
    return found.history


def _throughput(
    case: Case, plan: Plan, task: Task, history: tuple[Any, ...], took: float
) -> Iterator[Row]:
    sizes = _sizes(plan)
    done = len(history) // sizes["population"]
    whole = 2 if plan.tiny else GENERATIONS
    what = f"{sizes['population']} × {whole} candidates by the published procedure"
    note = "" if done == whole else f"EXTRAPOLATED from {done} of {whole} generations"
    yield Row.below(what, took * whole / done, "s", case.target, note)
    settings = replace(
        baseline.settings_of(task, plan.device),
        rejection_steps=sizes.get("rejection_steps", task.training.rejection_steps),
        local_steps=sizes.get("local_steps", 250),
        fitness_steps=sizes.get("fitness_steps", task.training.steps),
    )
    mean, new, sampled = baseline_mean(history, settings, 2 if plan.tiny else SAMPLE, case.plain)
    yield Row("candidates an hour", 3600 * len(history) / took, "")
    yield Row("  one at a time with double backward", 3600 * len(history) / (mean * new), "",
              f"ESTIMATED from {sampled} of {new} new ones")  # fmt: skip
    yield Row.at_least("  ratio", mean * new / took, "×", FASTER)


def _operations(plan: Plan, task: Callable[[], Task]) -> Iterator[Row]:
    """How far base trainings are from what matrix products allow."""
    case = limits.Case(task, 4 if plan.tiny else POPULATION, 2 if plan.tiny else 100)
    work, sizes = limits.trainings(case, str(plan.device))
    large = 64 if plan.tiny else LARGE
    one, loop = torch.float32, multiplied(sizes, case.population, plan.device, torch.float32)
    works = {
        "trainings": (work, limits.operations(sizes) * case.population * case.steps),
        "loop": (loop, limits.operations(sizes) * case.population),
        "large": (multiplied([(large,) * 3], 1, plan.device, one), 2.0 * large**3),
    }
    found = rates(works, plan)
    yield from reached(found, "trainings", "loop", "large")


def switches(plan: Plan) -> Iterator[Row]:
    """A generation tuned and trained, with each speed part on and off."""
    for name, case in (("LeNet-5", MNIST), ("2 × 1,000 units", DIABETES)):
        task, _ = case.task(plan)
        yield from _switched(name, task, plan)


def _switched(name: str, task: Task, plan: Plan) -> Iterator[Row]:
    short = {"local_steps": 2, "fitness_steps": 2} if plan.tiny else {
        "local_steps": 25, "fitness_steps": 50}  # fmt: skip
    losses = trees(15, 3 if plan.tiny else POPULATION)

    def bench(**changes: Any) -> Workbench:
        given = {"population": len(losses), "device": str(plan.device), **short, **changes}
        return Workbench(task, preset("paper", **given))

    on, eager = bench(), bench()
    eager.graphs = None
    form = LossPopulation(losses).form(on.rejection_start[0].to(plan.device).float())
    works = {
        "as it is": tuned_and_trained(on, losses),
        "eager": tuned_and_trained(eager, losses),
        "torch losses": _by_torch(tuned_and_trained(eager, losses)),
        "bf16": tuned_and_trained(bench(precision="bf16"), losses),
        "one by one": tuned_and_trained(bench(stacking="loop"), losses),
    }
    found = medians(works, plan)
    steps = short["local_steps"] + short["fitness_steps"]
    yield Row(f"{name}: a step of {len(losses)} losses", 1e3 * found["as it is"] / steps, "ms")
    if on.graphs is None:
        yield Row("  recorded steps (CUDA graphs) against eager ones", float("nan"), "×",
                  "left out: there are none on the CPU")  # fmt: skip
    else:
        yield Row("  recorded steps (CUDA graphs) against eager ones",
                  found["eager"] / found["as it is"], "×")  # fmt: skip
    names = {"triton": "Triton kernels", "fused": "Numba kernels", "torch": "torch operations"}
    yield Row(f"  losses by {names[form]} against torch operations",
              found["torch losses"] / found["eager"], "×", "both eager")  # fmt: skip
    yield Row("  networks stacked against one by one", found["one by one"] / found["as it is"], "×")
    yield Row("  precision=bf16 against float32", found["as it is"] / found["bf16"], "×",
              "see docs/scaling.md on when it is refused")  # fmt: skip


def _by_torch(work: Callable[[], None]) -> Callable[[], None]:
    def switched() -> None:
        with torch_losses():
            work()

    return switched


@contextmanager
def torch_losses() -> Iterator[None]:
    """Within it, all losses are computed by plain torch operations."""
    before = LossPopulation.form
    LossPopulation.form = lambda self, tensor: "torch"  # type: ignore[method-assign]
    try:
        yield
    finally:
        LossPopulation.form = before  # type: ignore[method-assign]
