"""Unlearning losses, as the loop sees them: the arena of adapters on a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import Any

from evoloss.discovery.arena import Final, Outcome, Tick, Tuned
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.race import Racing
from evoloss.discovery.randomness import Purpose
from evoloss.engine.device import described
from evoloss.engine.memory import budget
from evoloss.engine.remembered import remembered
from evoloss.execution.executor import Executor, Fault
from evoloss.execution.in_process import InProcess
from evoloss.lang.expr import Expr
from evoloss.lang.fingerprint import batch_direction_fingerprint
from evoloss.lang.screening import fault
from evoloss.lang.types import UNLEARNING, UNLEARNING_FORGET, Signature
from evoloss.lang.zoo import loss as known_loss
from evoloss.machine import cores, memory_of_machine
from evoloss.propose.proposer import Goal, Proposer, Space
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.contenders import Contender, trials
from evoloss.unlearn.footprint import Footprint, footprint
from evoloss.unlearn.methods import Makers, known_losses, proposer
from evoloss.unlearn.metrics.meaning import meanings
from evoloss.unlearn.objective import signature_of
from evoloss.unlearn.phase import Phase
from evoloss.unlearn.plain import written
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import MOST_TOGETHER, SHARE, Sharing, bounded, on_processors
from evoloss.unlearn.trainings import Trainings
from evoloss.unlearn.trials import TIMED, Trials, Tried, fastest
from evoloss.wording import counted

_CURVE = "balance on the part of the data that the search measures, before the end from the \
probabilities of answers alone"
"""What `details` keep of a training on its way."""


class Unlearning:
    """The arena of a bench.

    makers: what makes proposers that need more than the space, such as an endpoint.
    executor: where losses are tuned and trained; None: in this process.
    """

    output = None

    def __init__(
        self, bench: Bench, makers: Makers | None = None, executor: Executor | None = None
    ) -> None:
        self.bench = bench
        self.makers = makers
        self.executor = executor or InProcess(Trainings(bench), bench.settings.shard)

    @property
    def settings(self) -> UnlearnSettings:
        return self.bench.settings

    @property
    def signature(self) -> Signature:
        """What proposers write losses of."""
        return UNLEARNING if self.bench.has_retain else UNLEARNING_FORGET

    @property
    def usual(self) -> Expr:
        """The simplest loss that one would take."""
        return known_loss("grad-diff" if self.bench.has_retain else "ga")

    def threads(self) -> AbstractContextManager[None]:
        return self.bench.sharing.applied()

    def space(self, common: Mapping[str, Any]) -> Space:
        """Losses that fail a cheap test are drawn again, as if they had been seen before."""
        known = known_losses(self.bench.has_retain)
        seen = common["avoid"]

        def avoid(loss: Expr, epochs: int | None = None, rate: float = 1.0) -> bool:
            return seen(loss, epochs, rate) or self.faults([loss])[0] is not None

        return Space(
            usual=self.usual,
            output="identity",
            signature=self.signature,
            known=tuple(known.values()),
            most_epochs=self.settings.epochs,
            goal=Goal(
                self.settings.objective,
                partial(meanings, objective=self.settings.objective),
                _CURVE,
            ),
            **{**common, "avoid": avoid},
        )

    def proposer(self, space: Space) -> Proposer:
        return proposer(self.settings.method, space, self.makers)

    def fingerprint(self, loss: Expr) -> str | None:
        """Adam takes the same steps whatever a loss is multiplied by: its direction is enough."""
        return batch_direction_fingerprint(loss, signature_of(loss, self.bench.has_retain))

    def faults(self, losses: Sequence[Expr]) -> list[str | None]:
        return [fault(each, signature_of(each, self.bench.has_retain)) for each in losses]

    def tune(self, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
        items = [{"loss": written(each, self.bench.has_retain)} for each in losses]
        return [
            Tuned((math.nan,), 0, found.reason)
            if isinstance(found, Fault)
            else Tuned(tuple(found["phi"]), found["steps"], found["reason"])
            for found in self.executor.run("tune", items, {}, tick)
        ]

    def score(self, candidates: Sequence[Candidate], racing: Racing, tick: Tick) -> list[Outcome]:
        losses = [each.loss for each in candidates]
        epochs = [each.epochs or self.settings.epochs for each in candidates]
        rates = [each.rate * self.settings.lr for each in candidates]
        training = self.trials(self.bench.searching, losses, epochs, rates)
        done = training.run(self.bench.start, racing, tick)
        return [_outcome(each, training.rung) for each in done]

    def finals(self, candidates: Sequence[Candidate]) -> tuple[list[Final], int]:
        """The best of them at the learning rate that suits them, on other adapters and minibatches.

        Each adapter is in a phase of its own. The other candidates are left as they are: a single
        training is not to be compared with several.
        """
        candidates = candidates[: self.settings.finalists]
        lr, rates = self.settings.lr, self.settings.final_rates
        pairs = [(each, each.rate * rate * lr) for each in candidates for rate in rates]
        found, steps = self._again(pairs, 1)
        best: dict[int, tuple[Candidate, float, float]] = {}
        for (candidate, rate), score in zip(pairs, found, strict=True):
            if score is not None and score > best.get(candidate.id, (candidate, 0.0, -1.0))[2]:
                best[candidate.id] = (candidate, rate, score)
        scores = {id: [score] for id, (_, _, score) in best.items()}
        for seed in range(2, 1 + self.settings.final_seeds) if best else ():
            found, more = self._again([(each, rate) for each, rate, _ in best.values()], seed)
            steps += more
            for id, score in zip(list(best), found, strict=True):
                scores[id].append(math.nan if score is None else score)
        finals = []
        for id, (candidate, rate, _) in best.items():
            errors = tuple(-score for score in scores[id])
            if all(map(math.isfinite, errors)):
                finals.append(Final(candidate, fmean(errors), errors=errors, lr=rate))
        return finals, steps

    def _again(
        self, pairs: Sequence[tuple[Candidate, float]], seed: int
    ) -> tuple[list[float | None], int]:
        """The score of each candidate at a learning rate, and the steps that took."""
        training = self.trials(
            self.bench.phase(self.bench.finals(seed)),
            [each.loss for each, _ in pairs],
            [each.epochs or self.settings.epochs for each, _ in pairs],
            rates=[rate for _, rate in pairs],
            seed=seed,
        )
        with self.threads():
            done = training.run(self.bench.start_of(seed))
        return [each.score for each in done], sum(each.steps for each in done)

    def shown(self, error: float) -> float:
        return -error

    def trials(
        self, phase: Phase, losses: Sequence[Expr], epochs: Sequence[int],
        rates: Sequence[float] | None = None, seed: int = 0,
    ) -> Trials:  # fmt: skip
        """Trainings of an adapter for each loss. seed: another one, other minibatches."""
        return loss_trials(self.bench, phase, losses, epochs, rates, seed, self.executor)

    def sharing(self) -> Sharing:
        """How to share this machine among adapters.

        In shards, processors are shared by a rule (`sharing.on_processors`). Without, so many
        adapters as there is room for train side by side, or one after the other, whatever a trial
        finds faster; once for such a model and settings, so that the next search has the same
        history.
        """
        bench, settings = self.bench, self.settings
        device = bench.language.device
        if settings.shard is not None and device.type != "cpu":
            return bench.sharing
        needed = self._footprint()
        if settings.shard is not None:
            return self._told(on_processors(needed, settings, cores(), memory_of_machine()))
        room = budget(device, None) or SHARE * memory_of_machine() - needed.process
        most = min(settings.population, MOST_TOGETHER)
        bench.sharing = self._told(bounded(bench.sharing, needed, settings, room, most))
        return self._fastest()

    def _footprint(self) -> Footprint:
        bench, settings = self.bench, self.settings
        sets = bench.searching.sets

        def estimate(_: Sequence[int]) -> list[Footprint]:
            return [footprint(bench.language.model, sets, settings.lora, settings.batch)]

        [needed] = bench.in_parts([0], estimate)
        return needed

    def _fastest(self) -> Sharing:
        """Of the bench's adapters side by side and one at a time, what a trial finds faster."""
        bench, settings = self.bench, self.settings
        most, epochs = bench.sharing.together, max(TIMED, settings.epochs)
        choices = {most} if settings.together else {1, most}

        def some(count: int) -> Trials:
            return self.trials(bench.searching, [self.usual] * count, [epochs] * count)

        language = bench.language
        about = (
            repr(language.model), language.precision, described(language.device), settings.batch,
            settings.lora, sorted(choices), bench.sharing.trained,
            len(bench.searching.sets.forget),
        )  # fmt: skip
        found = remembered("adapters", about, lambda: asdict(fastest(bench, some, choices)))
        # Memory may not have done for what was tried out.
        together = min(found["together"], bench.sharing.together)
        return replace(bench.sharing, together=together, threads=found["threads"])

    def _told(self, sharing: Sharing) -> Sharing:
        """The same; says so where memory does for less than a whole minibatch of one adapter."""
        if sharing.trained is not None:
            rows = counted(sharing.trained, "row")
            self.bench.say(
                f"note: memory does for {rows} of a minibatch at a time, which costs time"
            )
        return sharing


def loss_trials(
    bench: Bench, phase: Phase, losses: Sequence[Expr], epochs: Sequence[int],
    rates: Sequence[float] | None = None, seed: int = 0, executor: Executor | None = None,
) -> Trials:  # fmt: skip
    """Trainings of an adapter for each loss, with its epochs and its learning rate."""
    chosen = rates or [bench.settings.lr] * len(losses)
    group = [
        Contender("", loss, epochs=epoch, lr=rate)
        for loss, epoch, rate in zip(losses, epochs, chosen, strict=True)
    ]
    return trials(bench, phase, group, Purpose.FITNESS_BATCHES, seed, executor)


def _outcome(tried: Tried, rung: int) -> Outcome:
    details: dict[str, Any] = {"curve": [list(point) for point in tried.curve]}
    if tried.measured is not None:
        details["metrics"] = dict(tried.measured.values)
    if tried.at_rung:
        details["at_rung"] = dict(tried.at_rung)
    error = None if tried.score is None else -tried.score
    fate = Fate.RACED_OUT if tried.raced_out else Fate.FAILED
    fate = fate if tried.measured is None else Fate.SCORED
    passed = tuple(-balance for step, balance in tried.curve if step == rung)
    return Outcome(fate, error, tried.steps, tried.reason, details, passed)
