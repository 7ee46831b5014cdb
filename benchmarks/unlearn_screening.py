"""Prints what the cheap tests of unlearning losses reject, and how that would have trained.

`python benchmarks/unlearn_screening.py [--losses 120] [--seeds 0 1] [--proposals FILE]`: proposals
of a search on the demonstration (known, random, bred from those that pass) without the tests, and
what the tests refuse of a file of language models' replies. All are trained in full, the rejected
ones as well, for equal epochs at the learning rate of the settings. Each seed has data, a model and
proposals of its own. The false-rejection rate is the share of the rejected that end in the upper
half of their seed; who ties with others stands behind them.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from unittest.mock import patch

from evoloss.discovery.archive import Archive
from evoloss.discovery.loop import known_to_proposers
from evoloss.lang import reader
from evoloss.lang.expr import Expr
from evoloss.lang.text import to_text
from evoloss.propose.proposer import Individual, Proposal
from evoloss.propose.unlearning import UnlearningEvolution
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.demo import SETTINGS, demonstration
from evoloss.unlearn.settings import unlearn_settings

GENERATIONS = 4


@dataclass(frozen=True)
class Trained:
    """A proposal, what a cheap test says of it (None if it passes), and its score in the end."""

    loss: Expr
    operator: str
    fault: str | None
    score: float  # -1 where the training broke down


@dataclass(frozen=True)
class Ranked:
    """Where a proposal ended among those of its seed."""

    trained: Trained
    place: int  # from 1; who ties with others stands behind them
    upper: bool

    @property
    def fault(self) -> str | None:
        return self.trained.fault


def ranked(every: Sequence[Trained]) -> list[Ranked]:
    places = [sum(other.score >= each.score for other in every) for each in every]
    return [
        Ranked(each, place, place <= len(every) / 2)
        for each, place in zip(every, places, strict=True)
    ]


def searched(arena: Unlearning, losses: int) -> list[Trained]:
    """Proposals of evolution, of which only those that pass the tests have children."""
    population = -(-losses // GENERATIONS)
    common = known_to_proposers(arena.settings, Archive(arena.settings, arena.fingerprint))
    seen: set[str] = set()
    space = replace(
        arena.space(common), population=population,
        avoid=lambda loss, epochs=None, rate=1.0: to_text(loss) in seen,
    )  # fmt: skip
    proposer = UnlearningEvolution(space)
    found: list[Trained] = []
    for number in range(GENERATIONS):
        # What a proposer cannot make anew within its retries, it proposes again.
        fresh: dict[str, Proposal] = {to_text(p.expression): p for p in proposer.ask(number)}
        asked = [each for text, each in fresh.items() if text not in seen]
        seen |= set(fresh)
        made = trained(arena, [each.expression for each in asked], [p.operator for p in asked])
        proposer.tell(number, [
            Individual(len(found) + at, each.loss, -each.score)
            for at, each in enumerate(made) if each.fault is None and each.score >= 0
        ])  # fmt: skip
        found += made
        print(f"  generation {number + 1} of {GENERATIONS}: {len(found)} trained", flush=True)
    return found


def refused(arena: Unlearning, file: Path) -> list[Trained]:
    """What only the tests refuse of the replies in a file, one a line under `raw`."""
    replies = [json.loads(line)["raw"] for line in file.read_text(encoding="utf-8").splitlines()]
    with patch.object(reader, "fault", return_value=None):
        read = [each for reply in replies for each in reader.read(reply)]
    losses = [each.expression for each in read if isinstance(each, reader.Read)]
    faults = arena.faults(losses)
    bad = [loss for loss, fault in zip(losses, faults, strict=True) if fault]
    return trained(arena, bad, ["reply"] * len(bad))


def trained(arena: Unlearning, losses: Sequence[Expr], operators: Sequence[str]) -> list[Trained]:
    """All of them, whatever the tests say."""
    if not losses:
        return []
    bench = arena.bench
    trials = arena.trials(bench.searching, losses, [bench.settings.epochs] * len(losses))
    with arena.threads():
        done = trials.run(bench.start)
    scores = [-1.0 if each.score is None else each.score for each in done]
    return [
        Trained(*row) for row in zip(losses, operators, arena.faults(losses), scores, strict=True)
    ]


def report(every: Sequence[Ranked]) -> None:
    scores = [each.trained.score for each in every]
    rejected = [each for each in every if each.fault]
    passed = [each for each in every if not each.fault]
    upper = sum(each.upper for each in rejected)
    operators = Counter(each.trained.operator for each in every)
    made = ", ".join(f"{count} {name}" for name, count in operators.items())
    broken = sum(score < 0 for score in scores)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{len(every)} losses trained ({made}); load average {load}")
    print(f"balance: best {max(scores):.3f}, median {median(scores):.3f}; {broken} broke down")
    print(f"rejected without training  {share(len(rejected), len(every))}")
    print(f"  rank in the lower half   {share(len(rejected) - upper, len(rejected))}")
    print(f"  false rejections         {share(upper, len(rejected))}")
    print(f"passed, in the lower half  {share(sum(not e.upper for e in passed), len(passed))}")
    for reason, count in Counter(each.fault for each in rejected).most_common():
        of_it = [each for each in rejected if each.fault == reason]
        best = max(each.trained.score for each in of_it)
        wrong = sum(each.upper for each in of_it)
        print(f"  {count:4} {reason}: {wrong} in the upper half, best {max(best, 0):.3f}")
    for each in islice(sorted(rejected, key=lambda each: -each.trained.score), 10):
        text = to_text(each.trained.loss, 4)
        print(f"  {each.trained.score:.3f} rank {each.place}: {each.fault}: {text}")


def share(part: int, whole: int) -> str:
    return f"{part:4} of {whole:4}  {part / max(whole, 1):6.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--proposals", type=Path)
    arguments = parser.parse_args()
    every: list[Ranked] = []
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        arena = Unlearning(Bench(demonstration(seed), unlearn_settings(**SETTINGS, seed=seed)))
        arena.bench.sharing = arena.sharing()
        losses = searched(arena, arguments.losses)
        if arguments.proposals:
            losses += refused(arena, arguments.proposals)
        every += ranked(losses)
        report(every)


if __name__ == "__main__":
    main()
