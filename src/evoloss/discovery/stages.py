"""The way of one generation from proposals to results: each stage keeps some and says why not.

Duplicates → untuned equivalence → untuned rejection → tuning → rejection → tuned equivalence →
fitness. The paper preset leaves all but duplicates (by text), tuning, rejection and fitness out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from evoloss.discovery.archive import Archive
from evoloss.discovery.arena import Arena
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.race import SMALLEST_RACE, Racing, marks
from evoloss.errors import LossError
from evoloss.lang.weights import with_constants
from evoloss.propose.proposer import Proposal

_RUNGS = "rungs"
"""Of a candidate's details: its errors at the rungs of an asynchronous race."""
Report = Callable[[str, float], None]
"""Told which stage is at work, and what share of it is done."""


class Generation:
    """The candidates of one generation on their way through the stages.

    pending: indices of those still in the run; seconds: wall time by stage.
    """

    def __init__(
        self, arena: Arena, archive: Archive, number: int, proposals: Sequence[Proposal],
        report: Report,
    ) -> None:  # fmt: skip
        self.arena = arena
        self.archive = archive
        self.number = number
        self.report = report
        self.seconds: dict[str, float] = {}
        self.first_id = len(archive.history)
        self.candidates = [
            Candidate(
                id=self.first_id + index,
                generation=number,
                index=index,
                operator=proposal.operator,
                parents=proposal.parents,
                expression=proposal.expression,
                canonical=archive.form(proposal.expression, proposal.epochs, proposal.rate),
                epochs=proposal.epochs,
                rate=proposal.rate,
            )
            for index, proposal in enumerate(proposals)
        ]
        self.pending = list(range(len(self.candidates)))

    def run(self) -> tuple[Candidate, ...]:
        """All stages in order; returns the finished candidates."""
        settings = self.arena.settings
        with self.arena.threads():
            with self._stage("screening"):
                self._drop_duplicates()
                self._drop_equivalent(self.archive.untuned_equivalent_of)
            if settings.rejection and settings.reject_first:
                with self._stage("rejection"):
                    self._reject()
            if settings.local_search != "none":
                with self._stage("tuning"):
                    self._tune()
            tested = settings.local_search == "none" and settings.reject_first
            if settings.rejection and not tested:
                with self._stage("rejection"):
                    self._reject()
            with self._stage("screening"):
                self._drop_equivalent(self.archive.tuned_equivalent_of)
            with self._stage("training"):
                self._score()
        self._take_over()
        return tuple(self.candidates)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.report(name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _change(self, index: int, **changes: Any) -> None:
        self.candidates[index] = replace(self.candidates[index], **changes)

    def _drop(self, index: int, fate: Fate, reason: str, **changes: Any) -> None:
        self._change(index, fate=fate, reason=reason, **changes)
        self.pending.remove(index)

    def _drop_duplicates(self) -> None:
        """Equal forms, in earlier generations or earlier in this one, share one result."""
        here: dict[str, int] = {}
        for index in list(self.pending):
            candidate = self.candidates[index]
            seen = self.archive.duplicate_of(candidate.canonical)
            if seen is None:
                seen = here.setdefault(candidate.canonical, candidate.id)
            if seen != candidate.id:
                self._drop(index, Fate.DUPLICATE, f"same form as #{seen}", same_as=seen)

    def _drop_equivalent(self, find: Callable[[Candidate], int | None]) -> None:
        """Losses with the gradients of an earlier generation's train to the same weights."""
        for index in list(self.pending):
            seen = find(self.candidates[index])
            if seen is not None:
                self._drop(index, Fate.EQUIVALENT, f"same gradients as #{seen}", same_as=seen)

    def _reject(self) -> None:
        if not self.pending:
            return
        found = self.arena.faults([self.candidates[index].loss for index in self.pending])
        for index, fault in zip(list(self.pending), found, strict=True):
            if fault is not None:
                self._drop(index, Fate.REJECTED, fault)

    def _tune(self) -> None:
        if not self.pending:
            return
        expressions = [self.candidates[index].expression for index in self.pending]
        found = self.arena.tune(expressions, lambda share: self.report("tuning", share))
        for index, tuned in zip(list(self.pending), found, strict=True):
            try:
                self._change(index, steps=tuned.steps, **self._tuned(index, tuned.phi))
            except LossError:
                reason = tuned.reason or "tuning its weights gave NaN"
                self._drop(index, Fate.FAILED, reason, steps=tuned.steps)

    def _tuned(self, index: int, phi: tuple[float, ...]) -> dict[str, Any]:
        """Weights on edges are kept beside the structure; constants are part of it.

        Raises LossError if one is not finite.
        """
        if not all(map(math.isfinite, phi)):
            raise LossError("a weight is not finite")
        if self.arena.settings.weights == "edges":
            return {"phi": phi}
        return {"expression": with_constants(self.candidates[index].expression, phi)}

    def _score(self) -> None:
        if not self.pending:
            return
        settings = self.arena.settings
        candidates = [self.candidates[index] for index in self.pending]
        racing = settings.racing if settings.waits or not settings.racing else self._marks()
        found = self.arena.score(candidates, racing, lambda share: self.report("training", share))
        for index, outcome in zip(list(self.pending), found, strict=True):
            passed = {} if settings.waits else {_RUNGS: list(outcome.rungs)}
            changes = {
                "error": outcome.error,
                "steps": self.candidates[index].steps + outcome.steps,
                "details": {**outcome.details, **passed},
            }
            if outcome.fate is Fate.SCORED:
                self._change(index, **changes)
            else:
                self._drop(index, outcome.fate, outcome.reason, **changes)

    def _marks(self) -> Racing:
        """Of the last generations in which as many raced as are in one, or of those there are.

        As long as these are too few, a generation is its own measure.
        """
        found: list[Sequence[float]] = []
        for number in reversed(range(self.number)):
            found += (each.details.get(_RUNGS, ()) for each in self.archive.generation(number))
            found = [each for each in found if each]
            if len(found) >= self.arena.settings.population:
                break
        return marks(found) if len(found) >= SMALLEST_RACE else True

    def _take_over(self) -> None:
        """Duplicates and equivalents get the result of their original, but not its weights.

        A tree of the same form may have other edges, or the same ones in another order.
        """
        for index, candidate in enumerate(self.candidates):
            original = candidate
            while original.same_as is not None:
                original = self._by_id(original.same_as)
            if original is not candidate:
                self._change(index, same_as=original.id, error=original.error, phi=None)

    def _by_id(self, id: int) -> Candidate:
        if id >= self.first_id:
            return self.candidates[id - self.first_id]
        return self.archive.history[id]
