"""The loop: ask the proposer, run the stages, archive and store, until the budget is spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evoloss.discovery.archive import Archive, pareto
from evoloss.discovery.arena import Arena, Final
from evoloss.discovery.budgets import RECORD, Ending, Spent, ending
from evoloss.discovery.candidate import Fate, Summary
from evoloss.discovery.finalists import simplest_of_the_best
from evoloss.discovery.loop_settings import ENDLESS, LoopSettings
from evoloss.discovery.progress import Observer, Progress
from evoloss.discovery.randomness import Purpose, stream
from evoloss.discovery.result import Budget, Result, found_losses
from evoloss.discovery.stages import Generation
from evoloss.errors import NothingTrained
from evoloss.execution.journal import Journal
from evoloss.propose.proposer import Individual
from evoloss.store import Store
from evoloss.wording import counted


def known_to_proposers(settings: LoopSettings, archive: Archive, **records: Any) -> dict[str, Any]:
    """The fields of a Space that the loop knows; the arena adds what is its own.

    records: what becomes of a proposer's, where they are stored.
    """
    return {
        "population": settings.population,
        "parsimony": settings.parsimony,
        "retries": settings.retries,
        "seeded": settings.seeded,
        "random": lambda number, slot: stream(settings.seed, Purpose.PROPOSAL, number, slot),
        "avoid": archive.seen,
        **records,
    }


class Run:
    """One search at work: the arena, the archive, where it is stored and who watches.

    journal: where the arena's executor keeps what is not stored yet.
    """

    def __init__(
        self, arena: Arena, store: Store | None, observer: Observer | None,
        journal: Journal | None = None,
    ) -> None:  # fmt: skip
        self.arena = arena
        self.settings = arena.settings
        self.store = store
        self.observer = observer
        self.journal = journal
        history = None if store is None else store.history()
        self.archive = Archive(self.settings, arena.fingerprint, history)
        self.records: list[Mapping[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.refusals: list[Mapping[str, Any]] = []
        self.generation = 0
        if store is not None:
            self.archive.restore(self._summaries(store))
            self.seconds = store.seconds()
            self.generation = store.generations
            self.refusals.extend(store.records(RECORD))
        self.began_at = self.generation
        self.exhausted = False
        known = known_to_proposers(
            self.settings, self.archive, keep=self.records.append, save=self._save,
            saved=() if store is None else store.unfinished(),
        )  # fmt: skip
        self.proposer = arena.proposer(arena.space(known))
        looks_back = getattr(self.proposer, "looks_back", None)
        first = 0 if looks_back is None else max(0, self.generation - looks_back)
        for number in range(first, self.generation):
            self._tell(number)
        self.started = time.perf_counter()

    def go(self) -> Result:
        """Searches until the budget is spent, and picks the best."""
        try:
            while self.ending() is None:
                self._one_generation()
            return self._finish()
        finally:
            if self.store is not None:
                self.store.close()

    def _one_generation(self) -> None:
        self.records.clear()
        start = time.perf_counter()
        proposals = self.proposer.ask(self.generation)
        proposing = time.perf_counter() - start
        if not proposals:
            self.exhausted = True
            return
        generation = Generation(self.arena, self.archive, self.generation, proposals, self._report)
        candidates = generation.run()
        spent = {**generation.seconds, "proposing": proposing}
        summaries = [self.archive.summary(each) for each in candidates]
        if self.store is not None:
            self.store.commit(self.generation, candidates, spent, self.records, summaries)
            self._stored()
        self.archive.extend(candidates, summaries)
        self.refusals += [each for each in self.records if each.get("kind") == RECORD]
        for stage, seconds in spent.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._tell(self.generation)
        self.generation += 1
        self._report("saved", 0.0)

    def _stored(self) -> None:
        if self.journal is not None:
            self.journal.clear()

    def _save(self, record: Mapping[str, Any]) -> None:
        """Stores a record of the generation in work, whatever becomes of that."""
        if self.store is not None:
            self.store.save(self.generation, record)

    def _summaries(self, store: Store) -> list[Summary]:
        """Of all stored candidates; found out anew, and kept, where an earlier version wrote."""
        found = store.summaries()
        if len(found) < len(self.archive.history):
            found = [self.archive.summary(each) for each in self.archive.history]
            store.add_summaries(found)
        return found

    def _tell(self, generation: int) -> None:
        """The proposer learns how a finished generation fared."""
        last = self.archive.generation(generation)
        standing = self.archive.standing(last)
        people = [
            Individual(
                id=each.id,
                expression=each.expression,
                error=standing[each.id],
                epochs=each.epochs,
                rate=each.rate,
                operator=each.operator,
                parents=each.parents,
                reason=each.reason,
                details=self.archive.original(each).details,
            )
            for each in last
        ]
        self.proposer.tell(generation, people)

    def ending(self) -> Ending | None:
        """What ends the search now; None while it may go on."""
        if self.exhausted:
            return Ending("")
        spent = Spent(
            generations=self.generation,
            candidates=len(self.archive.history),
            steps=self.archive.steps,
            seconds=sum(self.seconds.values()),
            records=self.refusals,
        )
        return ending(self.settings, spent)

    def _finish(self) -> Result:
        outcome = self.store.outcome if self.store is not None else None
        if outcome is None:
            ended = self.ending()
            outcome = {**self._outcome(), "ended": None if ended is None else ended.to_json()}
            if self.store is not None:
                self.store.finish(outcome)
                self._stored()
        best, front = found_losses(outcome, self.archive.history, self.arena.output)
        return Result(
            best=best,
            front=front,
            history=self.archive.history if self.store is not None else tuple(self.archive.history),
            budget=Budget.counted(self.archive.fates, self.archive.steps, self.seconds, outcome),
            run=self.store.directory if self.store is not None else None,
            ended=Ending.of(outcome),
        )

    def _outcome(self) -> dict[str, Any]:
        """The best and the front by id, what put them there, and what finding that out took."""
        leading = self.archive.leading
        if not leading:
            raise NothingTrained(
                f"none of {counted(len(self.archive.history), 'candidate')} could be trained "
                f"({_fates(self.archive.fates)}): try more generations, a larger population, "
                "or a smaller learning rate of the base network"
            )
        finals = [Final(each, float(each.error or 0.0)) for each in leading]
        cost = None
        if self.settings.finalists:
            self._report("finalists", 0.0)
            start = time.perf_counter()
            again, steps = self.arena.finals(leading)
            finals = again or finals
            cost = {"seconds": time.perf_counter() - start, "steps": steps}
        best = simplest_of_the_best(finals)
        front = pareto([(each.candidate, each.error) for each in finals])
        kept = {best.candidate.id, *(each.id for each in front)}
        return {
            "best": best.candidate.id,
            "front": [each.id for each in front],
            "finals": [each.to_json() for each in finals if each.candidate.id in kept],
            "finalists": cost,
        }

    def _report(self, stage: str, share: float) -> None:
        if self.observer is None:
            return
        settings, best = self.settings, self.archive.best
        seconds = time.perf_counter() - self.started
        finished = self.generation - self.began_at
        left = settings.generations - self.generation
        self.observer(
            Progress(
                generation=min(self.generation + (stage != "saved"), settings.generations),
                generations=settings.generations,
                stage=stage,
                best=best,
                best_shown=None if best is None or best.error is None
                else self.arena.shown(best.error),
                fates=Counter(self.archive.fates),
                candidates=len(self.archive.history),
                per_second=finished * settings.population / seconds if finished else 0.0,
                seconds=seconds,
                seconds_left=seconds / finished * left
                if finished and settings.generations < ENDLESS else None,
            )
        )  # fmt: skip


def _fates(counts: Counter[Fate]) -> str:
    return ", ".join(f"{count} {fate}" for fate, count in counts.most_common())
