"""Prints what tuning the constants of the known unlearning losses adds, on the demonstration.

`python benchmarks/unlearn_tuning.py [LOCAL_STEPS [SEED]]`: each loss untuned, tuned by the
hyper-gradient and by evolution strategies; its balance on the search part, the mean of two
adapters and orders of minibatches that tuning has not seen, at the learning rate of the settings,
and at the best of half, one and two times that.
"""

import sys
import time
from statistics import fmean

from evoloss.lang.expr import Expr
from evoloss.lang.text import to_text
from evoloss.lang.weights import with_constants
from evoloss.lang.zoo import loss
from evoloss.unlearn.arena import loss_trials
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.demo import SETTINGS, demonstration
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.tuning import tune

LOSSES = ("grad-diff", "npo", "sim-npo", "wga", "sat-imp", "ce-u", "kl-retain")
SEEDS = (1, 2)
RATES = (0.5, 1.0, 2.0)
"""Multiples of the learning rate of the settings."""


def scores(bench: Bench, losses: list[Expr]) -> list[tuple[float, float]]:
    """Of each loss, the mean score at the rate of the settings, and at the best rate."""
    settings = bench.settings
    by_rate = {}
    for rate in RATES:
        rows = []
        for seed in SEEDS:
            trials = loss_trials(
                bench, bench.searching, losses, [settings.epochs] * len(losses),
                [rate * settings.lr] * len(losses), seed,
            )  # fmt: skip
            rows.append([each.score or 0.0 for each in trials.run(bench.start_of(seed))])
        by_rate[rate] = [fmean(each) for each in zip(*rows, strict=True)]
    return list(zip(by_rate[1.0], map(max, zip(*by_rate.values(), strict=True)), strict=True))


def tuned(problem: Problem, losses: list[Expr], local_search: str, steps: int, seed: int) -> None:
    """Prints a row for each loss, and what the tuning took."""
    settings = unlearn_settings(
        **SETTINGS, local_search=local_search, local_steps=steps, seed=seed, together=len(losses)
    )
    bench = Bench(problem, settings)
    if local_search != "none":
        _ = bench.searching, bench.start  # is not charged to the tuning
        begun = time.perf_counter()
        found = tune(bench, losses, lambda share: None)
        seconds = time.perf_counter() - begun
        losses = [with_constants(loss, each.phi) for loss, each in zip(losses, found, strict=True)]
        training = bench.steps(bench.searching, settings.epochs)
        print(f"\n{local_search}: {max(each.steps for each in found)} steps a loss,", end=" ")
        print(f"along a training of {training}; {seconds / len(losses):.1f} s a loss")
    else:
        print("\nuntuned")
    scored = scores(bench, losses)
    for name, each, (usual, best) in zip(LOSSES, losses, scored, strict=True):
        print(f"  {name:10} {usual:.3f} {best:.3f}  {to_text(each)}")
    usual, best = (fmean(each) for each in zip(*scored, strict=True))
    print(f"  {'mean':10} {usual:.3f} {best:.3f}", flush=True)


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    problem = demonstration(seed)
    for local_search in ("none", "unrolled", "es"):
        tuned(problem, [loss(each) for each in LOSSES], local_search, steps, seed)


if __name__ == "__main__":
    main()
