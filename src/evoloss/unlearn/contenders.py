"""What is compared: a found loss, a known one or a rival method, each with its learning rate.

A hand-written loss is tuned before anybody claims to beat it: in as many trainings as a search
takes, over its constants, learning rate and epochs, drawn at random (Bergstra & Bengio 2012)
and raced as the candidates of a search are. The first of them is what its authors recommend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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

WIDEST_RATE, WIDEST_CONSTANT = 4.0, 4.0
"""Rates and constants are drawn, in their logarithms, up to so many times their default."""


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


def contender(name: str, **constants: float) -> Contender:
    """A hand-written loss or method of a name. Raises: UserError if there is none."""
    if name in RIVALS:
        rival = RIVALS[name]
        usual = {key: each.default for key, each in rival.constants.items()}
        return Contender(name, None, name, {**usual, **constants}, lr=rival.lr)
    if name in zoo.names("unlearning"):
        return Contender(name, zoo.loss(name, **constants), constants=constants)
    raise unknown("unlearning loss or method", name, names(True))


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


def tuned(
    bench: Bench, name: str, budget: int, tick: Tick = lambda share: None,
    executor: Executor | None = None,
) -> tuple[Contender, int]:  # fmt: skip
    """The best of so many settings of a hand-written loss, and the gradient steps that it took.

    Chosen on the search part of the data. Raises: UserError if none of them could be trained.
    """
    rng = stream(bench.settings.seed, Purpose.TUNING_BATCHES, *name.encode())
    known = contender(name)
    first = replace(known, epochs=bench.settings.epochs, lr=known.lr or bench.settings.lr)
    group = [first, *(_varied(bench, name, rng) for _ in range(budget - 1))]
    training = trials(bench, bench.searching, group, Purpose.FITNESS_BATCHES, 0, executor)
    done = training.run(bench.start, racing=True, tick=tick)
    steps = sum(each.steps for each in done)
    able = [at for at, tried in enumerate(done) if tried.measured is not None]
    if not able:
        raise UserError(
            f"'{name}' broke down in all of {counted(budget, 'training')}: {_reason(done)}"
        )
    best = min(able, key=lambda at: (-(done[at].score or 0.0), at))
    return _as_used(group[best], bench), steps


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
    rate = (usual or settings.lr) * WIDEST_RATE ** rng.uniform(-1, 1)
    epochs = int(rng.integers(1, settings.epochs + 1))
    if name in RIVALS:
        drawn = {key: float(rng.choice(each.grid)) for key, each in RIVALS[name].constants.items()}
    else:
        drawn = {
            key: value * WIDEST_CONSTANT ** rng.uniform(-1, 1)
            for key, value in zoo.ZOO[name].constants.items()
        }
    return replace(contender(name, **drawn), epochs=epochs, lr=rate)
