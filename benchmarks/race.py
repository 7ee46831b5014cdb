"""Prints how often the race of a search eliminates losses that would have done well.

`python benchmarks/race.py [TASK …] [--generations 12] [--population 25] [--asynchronous]`

For each task: a search, and then every loss that it let into a race again, all to the full budget.
A loss that dropped out is eliminated falsely if it ends among the k best of its generation, k being
how many the race trains to the end. Races of as many losses drawn at random from all generations
(they meet the same weights and minibatches) show how often the final best drops out; with
`--asynchronous`, against the marks of as many others that have raced.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.fitness import advanced
from evoloss.discovery.race import RUNGS, SMALLEST_RACE, Racing, Score, marks, race
from evoloss.discovery.search import search
from evoloss.discovery.settings import preset
from evoloss.discovery.workbench import Workbench
from evoloss.engine.training import Trained
from evoloss.tasks.registry import load_task

TASKS = ("diabetes", "digits", "sine")
RACES = 5_000
STEPS = 1_000
Errors = NDArray[np.float64]
"""(stages, P): the error of each loss at every rung and at the end; infinite if it broke down."""


class Replay:
    """Runs a race of STEPS steps of losses whose trainings are known."""

    def __init__(self, errors: Errors) -> None:
        self.errors = errors

    def advance(self, running: Sequence[int], begin: int, end: int) -> list[tuple[float, ...]]:
        at = self.errors[ends(STEPS).index(end)]
        return [(float(at[each]),) for each in running]


def ends(total: int) -> list[int]:
    """The steps at which losses are compared, and the last."""
    return [*(round(total * rung) for rung in RUNGS), total]


def replayed(errors: Errors, racing: Racing) -> list[Score]:
    """The outcome of a race of these losses."""
    return race(Replay(errors), errors.shape[1], STEPS, racing)


def finishing(scores: Sequence[Score]) -> list[int]:
    """Who trained to the end."""
    return [at for at, each in enumerate(scores) if math.isfinite(each.error) and each.finished]


def whole(bench: Workbench, candidates: Sequence[Candidate]) -> Errors:
    """The errors of these losses when all of them are trained to the end."""
    total, trials = bench.fitness_steps, bench.fitness_trials
    losses = [each.loss for each in candidates]
    states = [Trained.start(trial.initial, len(losses)) for trial in trials]
    stages = []
    for begin, end in pairwise((0, *ends(total))):
        states, found = advanced(bench, losses, trials, states, begin, end)
        stages.append([fmean(each) for each in found])
    errors = np.array(stages)
    return np.where(np.isfinite(errors), errors, np.inf)


@dataclass(frozen=True)
class Race:
    """One generation's race, with what would have become of those that dropped out."""

    errors: Errors
    scores: Sequence[Score]

    @property
    def finished(self) -> list[int]:
        return finishing(self.scores)

    @property
    def spent(self) -> float:
        """Steps, as a share of those that all would take to the end."""
        return sum(each.steps for each in self.scores) / (STEPS * len(self.scores))

    @property
    def out(self) -> list[int]:
        return sorted(set(range(self.errors.shape[1])) - set(self.finished))

    @property
    def wronged(self) -> list[int]:
        """Dropped out, though among the k best in the end. Of equals, who finished is better."""
        dropped = np.isin(np.arange(self.errors.shape[1]), self.out)
        order = np.lexsort((dropped, self.errors[-1]))
        best = set(order[: len(self.finished)].tolist())
        return [each for each in self.out if each in best]


def races_of(bench: Workbench, history: Sequence[Candidate]) -> list[Race]:
    """The races of a search, generation by generation."""
    found: list[Race] = []
    for number in range(1 + max(each.generation for each in history)):
        entered = [
            each
            for each in history
            if each.generation == number and each.steps > bench.settings.tuning_steps
        ]
        if entered:
            errors = whole(bench, entered)
            settings = bench.settings
            racing = settings.waits or earlier(found, settings.population)
            found.append(Race(errors, replayed(errors, racing)))
            done = [at for at, each in enumerate(entered) if each.fate is Fate.SCORED]
            if done != found[-1].finished:
                raise RuntimeError(f"the race of generation {number} came out differently")
    return found


def earlier(races: Sequence[Race], population: int) -> Racing:
    """The marks of the last races, of a population at least; as `Generation` takes them."""
    rungs: list[tuple[float, ...]] = []
    for each in reversed(races):
        rungs += [score.rungs for score in each.scores if score.rungs]
        if len(rungs) >= population:
            break
    return marks(rungs) if len(rungs) >= SMALLEST_RACE else True


def drawn(errors: Errors, size: int, asynchronous: bool = False) -> tuple[float, float]:
    """How often the best of a race drawn at random drops out, and the median cost of that.

    The cost: by how much the best that is left is worse, as a share of the error of the best.
    """
    rng = np.random.default_rng(0)
    lost, costs = 0, []
    size = min(size, errors.shape[1] // (1 + asynchronous))
    for _ in range(RACES):
        chosen, *others = np.split(
            rng.choice(errors.shape[1], size * (1 + asynchronous), replace=False), 1 + asynchronous
        )
        racing: Racing = True
        for each in others:
            racing = marks([score.rungs for score in replayed(errors[:, each], True)])
        final = errors[-1, chosen]
        left = min(final[finishing(replayed(errors[:, chosen], racing))], default=math.inf)
        best = final.min()
        lost += left > best
        if left > best:
            costs.append(left / best - 1.0)
    return lost / RACES, float(np.median(costs)) if costs else 0.0


def correlation(one: Errors, other: Errors) -> float:
    """Of ranks (Spearman); a training that broke down ranks last."""
    return float(spearmanr(rankdata(one), rankdata(other)).statistic)


def report(name: str, races: Sequence[Race], size: int, asynchronous: bool) -> None:
    """What is printed of a task. size: of the races drawn at random."""
    pooled = np.concatenate([each.errors for each in races], axis=1)
    out, wronged = (sum(len(getattr(each, what)) for each in races) for what in ("out", "wronged"))
    print(f"{name}: {len(races)} races of {pooled.shape[1]} losses, of which {out} dropped out")
    print(f"  eliminated falsely: {wronged} of {out} ({wronged / max(1, out):.1%})")
    spent = sum(each.spent * each.errors.shape[1] for each in races) / pooled.shape[1]
    print(f"  steps spent: {spent:.0%} of what all would take to the end")
    for rung, errors in zip(RUNGS, pooled[:-1], strict=True):
        rank = correlation(errors, pooled[-1])
        print(
            f"  rank correlation of the error at {rung:.0%} of the steps with the last: {rank:.3f}"
        )
    best = sum(int(each.errors[-1].argmin()) in each.out for each in races)
    lost, cost = drawn(pooled, size, asynchronous)
    print(
        f"  the final best dropped out in {best} of {len(races)} races, and in {lost:.1%} of races"
    )
    worse = "nobody is left" if math.isinf(cost) else f"the best that is left is {cost:.1%} worse"
    print(f"  of {size} drawn at random, where {worse} (median)")


def run(name: str, seed: int, **settings: Any) -> None:
    """One task, printed."""
    task, chosen = load_task(name), {"seed": seed, "finalists": 0, **settings}
    history = search(task, **chosen).history
    bench = Workbench(task, preset("fast", **chosen))
    with bench.threads():
        report(name, races_of(bench, history), settings["population"], chosen["asynchronous"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--population", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--asynchronous", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.tasks or TASKS:
        run(name, arguments.seed, generations=arguments.generations,
            population=arguments.population, asynchronous=arguments.asynchronous)  # fmt: skip
    print("load average " + " ".join(f"{each:.1f}" for each in os.getloadavg()))


if __name__ == "__main__":
    main()
