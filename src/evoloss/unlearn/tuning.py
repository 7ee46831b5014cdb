"""Local search: the constants inside unlearning losses, tuned along the training of an adapter.

Each step of tuning looks one training step ahead, from where the training under the constants so
far has come to, and moves the constants by Adam; then the training goes on under the new ones (Xu
et al. 2018). So they are tuned on the states that a training passes through. Of what is to be
forgotten, validation minibatches have rows of the search part only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from evoloss.discovery.arena import Tuned
from evoloss.discovery.randomness import Purpose, stream
from evoloss.engine.optimisers import Adam
from evoloss.lang.expr import Expr
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.constants import Tunable, Tunables
from evoloss.unlearn.objective import LossObjective, Sets, signature_of
from evoloss.unlearn.one_step import OneStep, evolution_slope, hypergradient
from evoloss.unlearn.phase import Phase

Tick = Callable[[float], None]


def tune(bench: Bench, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
    """The constants of each loss after the settings' local steps; NaN where tuning broke down.

    Losses without any that can be tuned are not trained. Who is tuned side by side makes no
    difference: all have the same minibatches, and gradients of their own.
    tick: called now and then with the share that is done.
    """
    tunable = [Tunable.of(each, signature_of(each, bench.has_retain)) for each in losses]
    found = [Tuned(each.constants, 0) for each in tunable]
    rest = [at for at, each in enumerate(tunable) if any(each.free)]
    done = 0

    def some(part: Sequence[int]) -> list[list[float]]:
        nonlocal done
        share = [len(part) / len(rest), done / len(rest)]
        tuned = _tuned(
            bench, [tunable[at] for at in part], lambda own: tick(own * share[0] + share[1])
        )
        done += len(part)
        return tuned

    for at, constants in zip(rest, bench.in_parts(rest, some), strict=True):
        found[at] = Tuned(tuple(constants[: len(tunable[at].constants)]), _steps(bench))
    return found


def _steps(bench: Bench) -> int:
    """Training steps that tuning one loss takes: those looked ahead, and those between them."""
    settings = bench.settings
    ahead = 2 * settings.es_pairs if settings.local_search == "es" else 1
    reached: dict[int, int] = {}
    for lap, step in _stops(bench):
        reached[lap] = step
    return settings.local_steps * ahead + sum(reached.values())


def _tuned(bench: Bench, losses: Sequence[Tunable], tick: Tick) -> list[list[float]]:
    """The constants of some losses, tuned side by side."""
    settings = bench.settings
    width = max(len(each.constants) for each in losses)
    rho = torch.zeros(len(losses), width, dtype=torch.float64)
    adam = Adam(settings.meta_lr)
    state = adam.init(rho)
    problem = _beginning(bench, losses, rho, 0)
    for number, (lap, step) in enumerate(_stops(bench)):
        if lap and step == 0:
            problem = _beginning(bench, losses, rho, lap)
        problem = problem.moved_on(step)
        rho, state = adam.update(rho, _slope(bench, problem, number), state)
        problem = replace(problem, losses=replace(problem.losses, rho=rho))
        tick((number + 1) / settings.local_steps)
    found: list[list[float]] = problem.losses.constants.tolist()
    return found


def _stops(bench: Bench) -> list[tuple[int, int]]:
    """(training, step) of each step of tuning: spread evenly over one training, or over several.

    What matters early, when little is forgotten yet, is not what matters late, when forgetting has
    begun to cost: constants tuned on early states alone forget too hard.
    """
    training = bench.steps(bench.searching, bench.settings.epochs)
    a_lap = min(training, bench.settings.local_steps)
    places = (divmod(number, a_lap) for number in range(bench.settings.local_steps))
    return [(lap, place * training // a_lap) for lap, place in places]


def _beginning(bench: Bench, losses: Sequence[Tunable], rho: Tensor, lap: int) -> OneStep:
    """The first step of a training; when one is over, another begins with other minibatches."""
    settings, phase = bench.settings, bench.searching
    steps = bench.steps(phase, settings.epochs)

    def batches(which: int, sets: Sets) -> LossObjective:
        rng = stream(settings.seed, Purpose.TUNING_BATCHES, lap, which)
        return LossObjective([], sets, settings.batch, steps, rng)

    return OneStep(
        model=bench.language.model,
        lora=settings.lora,
        losses=Tunables(losses, batches(0, phase.sets), rho),
        validation=batches(1, bench.validation),
        floor=_floor(phase),
        schedules=[settings.schedule_of(steps, settings.lr)] * len(losses),
        standing=[bench.start] * len(losses),
    )


def _floor(phase: Phase) -> float:
    """How probable the forget set is to the retain model, relative to the original; below 1.

    0 where it is no less probable to the former. There is no part above such a floor, and the share
    of it that is gone would have no slope, or one that rewards remembering. What a search selects
    by looks at texts as well, and may still ask to forget: then as far as without a retain model.
    """
    if phase.retain is None:
        return 0.0
    never, before = (each.values["forget_prob"] for each in (phase.retain, phase.original))
    return never / before if never < before else 0.0


def _slope(bench: Bench, problem: OneStep, number: int) -> Tensor:
    """(K, N) the slope in ρ; 0 for what is not tuned, NaN for a loss that broke down."""
    settings, rho = bench.settings, problem.losses.rho
    if settings.local_search == "es":
        rng = stream(settings.seed, Purpose.LOCAL_SEARCH, number)
        slope = evolution_slope(problem, rho, settings.es_pairs, settings.es_sigma, rng)
    else:
        slope = hypergradient(problem, rho)
    free = problem.losses.free
    broken = (free & ~slope.isfinite()).any(1, keepdim=True)
    return torch.where(free, torch.where(broken, torch.nan, slope), 0.0)
