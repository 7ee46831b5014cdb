"""What is compared: a found loss, a known one or a rival method, each with its learning rate.

A hand-written loss is tuned before anybody claims to beat it: with the trainings and the gradient
steps of a search, over its constants, learning rate and epochs, drawn at random (Bergstra & Bengio
2012) and raced as the candidates of a search are. The first of them is what its authors recommend.
The best are tried again as the finalists of a search are: one training flatters whoever was lucky.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from evoloss.discovery.randomness import Purpose, stream
from evoloss.errors import UserError, unknown
from evoloss.execution.executor import Executor
from evoloss.lang import zoo
from evoloss.lang.expr import Expr
from evoloss.lang.text import to_text
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.methods import known_losses
from evoloss.unlearn.phase import Phase
from evoloss.unlearn.plain import Entry
from evoloss.unlearn.rivals import RIVALS
from evoloss.unlearn.trials import Tick, Trials, Tried
from evoloss.wording import counted

WIDEST = 4.0
"""Rates and constants are drawn, in their logarithms, up to so many times their default. With eight
times, as far as a search's first rates go, some fifty draws found worse ones: docs/results.md."""


@dataclass(frozen=True)
class Contender:
    """A way to unlearn.

    loss: an expression, or None for the rival method of the name; constants: of the rival or of
    the known loss. lr None: the settings' own.
    """

    label: str
    loss: Expr | None
    rival: str = ""
    constants: Mapping[str, float] = field(default_factory=dict)
    epochs: int | None = None
    lr: float | None = None

    @property
    def formula(self) -> str:
        """The loss as mathematics, or the method with its constants."""
        if self.loss is not None:
            return to_text(self.loss, digits=4)
        return f"{self.rival}({', '.join(f'{n} {v:.4g}' for n, v in self.constants.items())})"


def names(retain: bool) -> list[str]:
    """Every hand-written loss and method that can be compared with."""
    return [*known_losses(retain), *RIVALS]


def contender(name: str, retain: bool = True, **constants: float) -> Contender:
    """A hand-written loss or method of a name; its forget term alone, if there is no retain set.

    Raises: UserError if there is none.
    """
    if name in RIVALS:
        rival = RIVALS[name]
        usual = {key: each.default for key, each in rival.constants.items()}
        return Contender(name, None, name, {**usual, **constants}, lr=rival.lr)
    known = zoo.unlearning_losses(retain)
    if name in known:
        return Contender(name, zoo.loss_among(known, name, **constants), constants=constants)
    raise unknown("unlearning loss or method", name, names(retain))


def trials(
    bench: Bench, phase: Phase, group: Sequence[Contender], purpose: Purpose, seed: int,
    executor: Executor | None = None,
) -> Trials:  # fmt: skip
    """Trainings of contenders of one kind: expressions, or variants of one rival method.

    purpose, seed: of the minibatches. executor: where they are done; None: in this process.
    """
    settings = bench.settings
    entries = [
        Entry(
            each.loss, bench.steps(phase, each.epochs or settings.epochs), each.lr or settings.lr,
            each.rival, each.constants,
        )
        for each in group
    ]  # fmt: skip
    return Trials(bench, phase, entries, purpose, seed, executor)


@dataclass(frozen=True)
class Effort:
    """What a hand-written loss is tuned with: a search's trainings, those of its finalists among
    them, and the gradient steps of its candidates. More settings are tried until these are taken.
    """

    trainings: int
    steps: int = 0


@dataclass(frozen=True)
class Tuning:
    """The best setting of a hand-written loss.

    score: its mean on the adapters that finalists are scored on; None if one of those broke down.
    trainings, steps: that it took to find it, in all.
    """

    contender: Contender
    score: float | None
    trainings: int
    steps: int


def tuned(
    bench: Bench, name: str, effort: Effort, tick: Tick = lambda share: None,
    executor: Executor | None = None,
) -> Tuning:  # fmt: skip
    """The best of the settings of a hand-written loss, chosen on the search part of the data.

    Raises: UserError if none of them could be trained.
    """
    seeds = bench.settings.final_seeds
    finalists = min(bench.settings.finalists, max(1, effort.trainings // (2 * seeds)))
    draws = max(1, effort.trainings - finalists * seeds)
    group, done = _drawn(bench, name, draws, effort.steps, tick, executor)
    able = [at for at, tried in enumerate(done) if tried.measured is not None]
    if not able:
        raise UserError(
            f"'{name}' broke down in all of {counted(len(done), 'training')}: {_reason(done)}"
        )
    able.sort(key=lambda at: (-(done[at].score or 0.0), at))
    first = Tuning(
        _as_used(group[able[0]], bench), done[able[0]].score, len(done),
        sum(each.steps for each in done),
    )  # fmt: skip
    return _finals(bench, [group[at] for at in able[:finalists]], first, executor)


def _drawn(
    bench: Bench, name: str, draws: int, steps: int, tick: Tick, executor: Executor | None
) -> tuple[list[Contender], list[Tried]]:
    """Settings at random, with what became of them: so many, and more until the steps are taken."""
    rng = stream(bench.settings.seed, Purpose.TUNING_BATCHES, *name.encode())
    known = contender(name, bench.has_retain)
    usual = replace(known, epochs=bench.settings.epochs, lr=known.lr or bench.settings.lr)
    group: list[Contender] = []
    done: list[Tried] = []
    count, taken, spent = draws, -1, 0
    while count and taken:  # what takes no steps at all would go on for ever
        asked = [_varied(bench, name, rng) for _ in range(count)]
        chosen = asked if group else [usual, *asked[1:]]
        training = trials(bench, bench.searching, chosen, Purpose.FITNESS_BATCHES, 0, executor)
        found = training.run(bench.start, racing=True, tick=tick)
        group, done = group + chosen, done + found
        taken = sum(each.steps for each in found)
        spent += taken
        count = bench.settings.population if spent < steps else 0
    return group, done


def _finals(
    bench: Bench, group: Sequence[Contender], first: Tuning, executor: Executor | None
) -> Tuning:
    """The best of some settings on the adapters of finalists; the first where all break down."""
    if not group:
        return first
    rows = []
    for number in range(1, 1 + bench.settings.final_seeds):
        phase = bench.phase(bench.finals(number))
        again = trials(bench, phase, group, Purpose.FITNESS_BATCHES, number, executor)
        rows.append(again.run(bench.start_of(number)))
    scores: dict[int, float] = {}
    for at, tries in enumerate(zip(*rows, strict=True)):
        able = [each.score for each in tries if each.score is not None]
        if len(able) == len(tries):
            scores[at] = fmean(able)
    best = max(scores, key=lambda at: (scores[at], -at), default=0)
    return Tuning(
        _as_used(group[best], bench), scores.get(best), first.trainings + len(group) * len(rows),
        first.steps + sum(each.steps for row in rows for each in row),
    )  # fmt: skip


def _as_used(found: Contender, bench: Bench) -> Contender:
    """With the constants that the rival method takes for the model: those are to be listed."""
    if not found.rival:
        return found
    fitting = RIVALS[found.rival].fitting
    return replace(found, constants=fitting(found.constants, bench.language.model))


def _reason(done: Sequence[Tried]) -> str:
    return next((each.reason for each in done if each.reason), "")


def _varied(bench: Bench, name: str, rng: np.random.Generator) -> Contender:
    settings = bench.settings
    usual = RIVALS[name].lr if name in RIVALS else None
    rate = (usual or settings.lr) * WIDEST ** rng.uniform(-1, 1)
    epochs = int(rng.integers(1, settings.epochs + 1))
    if name in RIVALS:
        drawn = {key: float(rng.choice(each.grid)) for key, each in RIVALS[name].constants.items()}
    else:
        drawn = {
            key: value * WIDEST ** rng.uniform(-1, 1)
            for key, value in zoo.unlearning_losses(bench.has_retain)[name].constants.items()
        }
    return replace(contender(name, bench.has_retain, **drawn), epochs=epochs, lr=rate)
