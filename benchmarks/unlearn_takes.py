"""Prints what an unlearning search on a model of your own would take, from a few of its steps.

`python benchmarks/unlearn_takes.py --model DIR --data tofu:forget05 --data-dir DIR [--losses 80]
[--epochs 5] [--retain-rows 400] [--sample 16]`

Timed, on one adapter and on a sample of the rows: a step, a look at the rung of the race, and a
whole measurement with generated answers. The rest is counting. Seconds are of processor time on a
CPU, so that what runs beside it matters little, and of the wall on a GPU. Each hand-written loss to
compare with takes as long as the search; adapters side by side take less than one by one.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from evoloss.discovery.randomness import Purpose
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.contenders import contender, trials
from evoloss.unlearn.measurement import measure, quick
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.settings import UnlearnSettings, unlearn_settings
from evoloss.unlearn.trials import RUNG

STEPS = 3


@dataclass(frozen=True)
class Prices:
    """Seconds. look, answer: of a row, by its log-probabilities alone and with a generated text."""

    step: float
    look: float
    answer: float


@dataclass(frozen=True)
class Bill:
    """What a search comes to. steps: of one adapter; seconds: of training and of measuring."""

    steps: int
    training: float
    measuring: float


def prices(bench: Bench) -> Prices:
    """Of one adapter, on the bench's rows. The first step is to warm up."""
    device = bench.language.device
    training = trials(
        bench, bench.searching, [contender("grad-diff")], Purpose.FITNESS_BATCHES, 0
    ).here()
    standing = training.advanced([0], [bench.start], 1)
    step = timed(lambda: training.advanced([0], standing, 1 + STEPS), device) / STEPS
    prepared, language = bench.searching.prepared, bench.language
    rows = sum(len(each.answers) for each in prepared.sets.values())

    def look(how: Callable[..., object]) -> float:
        given = language.model, language.encoder, prepared
        return timed(lambda: how(*given, batch=bench.rows_measured), device) / rows

    return Prices(step, look(quick), look(measure))


def bill(cost: Prices, settings: UnlearnSettings, losses: int, forget: int, retain: int) -> Bill:
    """forget, retain: rows of the sets. Half of all losses leave the race at its rung."""
    whole = settings.epochs * math.ceil(forget / settings.batch)
    finals = settings.final_trainings
    steps = round(losses * whole * (RUNG + (1 - RUNG) / 2)) + finals * whole
    asked, kept = forget * settings.test_share, retain * settings.test_share / 2
    texts = min(kept, settings.texts or kept)
    measured = (asked + texts) * cost.answer + (kept - texts) * cost.look
    looks = losses * (asked + kept) * cost.look
    return Bill(steps, steps * cost.step, looks + (losses / 2 + finals) * measured)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds: of this process' processors, or of the wall where a GPU works."""
    if device.type == "cpu":
        begun = time.process_time()
        work()
        return time.process_time() - begun
    torch.cuda.synchronize(device)
    wall = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default="tofu:forget05")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--losses", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--retain-rows", type=int, default=400)
    parser.add_argument("--sample", type=int, default=16)
    chosen = parser.parse_args()
    given = {"data": chosen.data, "data_dir": chosen.data_dir, "probes": False}
    whole = load_problem(chosen.model, retain_rows=chosen.retain_rows, **given)
    part = load_problem(
        chosen.model, forget_rows=chosen.sample, retain_rows=4 * chosen.sample, **given
    )
    settings = unlearn_settings(epochs=chosen.epochs)
    bench = Bench(part, settings, print)
    forget, retain = len(whole.data.forget), len(whole.data.retain or ())
    cost = prices(bench)
    found = bill(cost, bench.settings, chosen.losses, forget, retain)
    kind = "of the processor" if bench.language.device.type == "cpu" else "of the wall"
    size = sum(each.numel() for each in bench.language.model.parameters()) / 1e6
    print(f"{bench.language.name}: {size:.0f} million parameters, seconds are {kind}")
    print(f"a step of {settings.batch} + {settings.batch} sequences {cost.step:10.3f} s")
    print(f"a row, log-probabilities    {cost.look:10.4f} s")
    print(f"a row, with a text          {cost.answer:10.4f} s")
    print(
        f"{chosen.losses} losses, {forget} rows to forget, {retain} to keep, {chosen.epochs} "
        f"epochs at most: {found.steps:,} steps, {found.training / 3600:.1f} hours; "
        f"measuring {found.measuring / 3600:.1f} hours"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory {peak:.1f} GiB; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
