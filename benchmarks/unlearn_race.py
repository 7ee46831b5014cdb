"""Prints how well half a training of an unlearning loss predicts the whole.

`python benchmarks/unlearn_race.py [--losses 40] [--seed 0]`: proposals of a search on the
demonstration at their own learning rates, all trained to the end for equal epochs. The score at the
rung, which a race compares, is correlated with the final one; races of as many losses as a
generation has, drawn at random from all, show how often the final best would have dropped out.
"""

import argparse
import os
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr
from unlearn_speed import generations

from evoloss.discovery.arena import Outcome
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.demo import SETTINGS, demonstration
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.trials import Tried

RACES = 20_000


def both_scores(
    arena: Unlearning, candidates: Sequence[Candidate]
) -> list[tuple[float | None, float | None]]:
    """At the rung and in the end, None where a training broke down."""
    with arena.threads():
        raced = _run(arena, candidates, racing=True)
        out = [at for at, each in enumerate(raced) if each.raced_out]
        whole = dict(zip(out, _run(arena, [candidates[at] for at in out]), strict=True))
    return [
        (each.curve[0][1] if each.curve else None, whole.get(at, each).score)
        for at, each in enumerate(raced)
    ]


def _run(arena: Unlearning, candidates: Sequence[Candidate], racing: bool = False) -> list[Tried]:
    bench = arena.bench
    if not candidates:
        return []
    trials = arena.trials(
        bench.searching, [each.loss for each in candidates],
        [bench.settings.epochs] * len(candidates),
        [each.rate * bench.settings.lr for each in candidates],
    )  # fmt: skip
    return trials.run(bench.start, racing)


def races(rung: np.ndarray, final: np.ndarray, size: int) -> tuple[float, float]:
    """How often the best of a race drops out, and the mean score that is lost by racing."""
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(RACES):
        chosen = rng.choice(len(rung), min(size, len(rung)), replace=False)
        order = chosen[np.argsort(-rung[chosen], kind="stable")]
        lost.append(final[chosen].max() - final[order[: -(-len(order) // 2)]].max())
    return fmean(each > 0 for each in lost), fmean(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = unlearn_settings(**SETTINGS, seed=arguments.seed)
    arena = Unlearning(Bench(demonstration(arguments.seed), settings))
    arena.bench.sharing = arena.sharing()
    found: list[tuple[float | None, float | None]] = []

    def score(candidates: Sequence[Candidate]) -> list[Outcome]:
        new = both_scores(arena, candidates)
        found.extend(new)
        return [
            Outcome(Fate.FAILED if end is None else Fate.SCORED, None if end is None else -end, 0)
            for _, end in new
        ]

    for made in generations(arena, arguments.losses, score):
        print(f"  {len(found)} trained, {len(made)} of them in this generation", flush=True)
    report([(a, b) for a, b in found if a is not None and b is not None], settings.population)


def report(pairs: Sequence[tuple[float, float]], population: int) -> None:
    rung, final = (np.array(each) for each in zip(*pairs, strict=True))
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{len(pairs)} losses trained to the end; load average {load}")
    print(f"rank correlation (Spearman) of rung and end: {spearmanr(rung, final).statistic:.3f}")
    best = int(final.argmax())
    place = 1 + int((rung > rung[best]).sum())
    print(f"the final best ({final[best]:.3f}) is number {place} of them at the rung")
    out, lost = races(rung, final, population)
    print(f"races of {population}: the final best drops out in {out:.1%};", end=" ")
    print(f"the best that is left scores {lost:.4f} less on average")


if __name__ == "__main__":
    main()
