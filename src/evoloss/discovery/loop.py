"""The loop: ask the proposer, run the stages, archive and store, until the budget is spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evoloss.discovery.archive import Archive, pareto
from evoloss.discovery.candidate import Candidate
from evoloss.discovery.finalists import Final, final_scores, simplest_of_the_best
from evoloss.discovery.methods import proposer
from evoloss.discovery.progress import Observer, Progress
from evoloss.discovery.randomness import Purpose, stream
from evoloss.discovery.result import Budget, Result, found_losses
from evoloss.discovery.settings import Settings, preset
from evoloss.discovery.stages import Generation
from evoloss.discovery.workbench import Workbench
from evoloss.errors import NothingTrained, UserError
from evoloss.propose.proposer import Individual, Space
from evoloss.store import Store
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task, check_network


def search(
    task: Task | str,
    *,
    out: Path | str | None = None,
    observer: Observer | None = None,
    preset: str = "fast",
    **settings: Any,
) -> Result:
    """Discovers a loss for a task.

    task: a Task, or what `load_task` takes. out: directory of a new run; None keeps nothing.
    observer: told of the progress. preset and settings: see `Settings`, such as seed=0,
    population=25, generations=50.
    Raises: UserError for a task, setting or directory that will not do, or if no candidate
    could be scored.
    """
    chosen = _settings(preset, settings)
    if isinstance(task, str):
        task = load_task(task)
    check_network(task)
    bench = Workbench(task, chosen)
    store = None
    if out is not None:
        about = {"task": task.name, "network": task.network_name, "metric": task.metric.name,
                 "output": task.output, "usual_loss": task.usual_loss,
                 "higher_is_better": task.metric.higher_is_better,
                 "stacking": bench.stacking}  # fmt: skip
        store = Store.create(Path(out), task=task.source, settings=chosen.to_json(), about=about)
    return _Run(bench, store, observer).go()


def resume(
    run: Path | str, *, task: Task | None = None, observer: Observer | None = None
) -> Result:
    """Continues a run that was broken off; its history becomes what it would have been.

    task: needed only for a run whose task lived in memory.
    """
    store = Store.open(Path(run), write=True)
    try:
        bench = _reopened(store, task)
    except BaseException:
        store.close()
        raise
    return _Run(bench, store, observer).go()


def _reopened(store: Store, task: Task | None) -> Workbench:
    """The workbench of a stored run. Raises UserError for a task that is not the run's."""
    run = store.directory
    if task is None:
        if store.task is None:
            raise UserError(
                f"run {run} was started from Python with a task in memory: "
                "resume it with evoloss.resume(run, task=…)"
            )
        task = load_task(**store.task)
    for name, value in (("task", task.name), ("network", task.network_name)):
        if store.about[name] != value:
            raise UserError(
                f"run {run} is for {name} '{store.about[name]}', not '{value}': "
                "resume it with the task it was started with"
            )
    return Workbench(task, Settings.from_json(store.settings), store.about["stacking"])


def _settings(name: str, changes: Mapping[str, Any]) -> Settings:
    known = set(Settings.__dataclass_fields__)
    for each in changes:
        if each not in known:
            raise UserError(f"unknown setting '{each}': known are {', '.join(sorted(known))}")
    return preset(name, **changes)


class _Run:
    """One search at work: the workbench, the archive, where it is stored and who watches."""

    def __init__(self, bench: Workbench, store: Store | None, observer: Observer | None) -> None:
        self.bench = bench
        self.settings = bench.settings
        self.store = store
        self.observer = observer
        self.archive = Archive(self.settings, bench.task.output)
        self.seconds: dict[str, float] = {}
        self.generation = 0
        if store is not None:
            self.archive.extend(store.candidates())
            self.seconds = store.seconds()
            self.generation = store.generations
        self.began_at = self.generation
        self.exhausted = False
        self.proposer = proposer(self._space(), bench)
        for number in range(self.generation):
            self._tell(number)
        self.started = time.perf_counter()

    def go(self) -> Result:
        try:
            while self._within_budget():
                self._one_generation()
            return self._finish()
        finally:
            if self.store is not None:
                self.store.close()

    def _one_generation(self) -> None:
        proposals = self.proposer.ask(self.generation)
        if not proposals:
            self.exhausted = True
            return
        generation = Generation(self.bench, self.archive, self.generation, proposals, self._report)
        candidates = generation.run()
        if self.store is not None:
            self.store.commit(self.generation, candidates, generation.seconds)
        self.archive.extend(candidates)
        for stage, seconds in generation.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._tell(self.generation)
        self.generation += 1
        self._report("saved", 0.0)

    def _space(self) -> Space:
        """What the proposer may know."""
        settings, archive = self.settings, self.archive
        return Space(
            population=settings.population,
            parsimony=settings.parsimony,
            retries=settings.retries,
            usual=self.bench.usual,
            seeded=settings.seeded,
            output=self.bench.task.output,
            random=lambda number, index: stream(settings.seed, Purpose.PROPOSAL, number, index),
            avoid=lambda expr: archive.duplicate_of(archive.form(expr)) is not None,
        )

    def _tell(self, generation: int) -> None:
        """The proposer learns how a finished generation fared."""
        last = [each for each in self.archive.history if each.generation == generation]
        standing = self.archive.standing(last)
        people = [Individual(each.id, each.expression, standing[each.id]) for each in last]
        self.proposer.tell(generation, people)

    def _within_budget(self) -> bool:
        settings = self.settings
        if self.generation >= settings.generations or self.exhausted:
            return False
        if settings.max_steps is not None and self.archive.steps >= settings.max_steps:
            return False
        limit = settings.max_seconds
        return limit is None or sum(self.seconds.values()) < limit

    def _finish(self) -> Result:
        outcome = self.store.outcome if self.store is not None else None
        if outcome is None:
            outcome = self._outcome()
            if self.store is not None:
                self.store.finish(outcome)
        best, front = found_losses(outcome, self.archive.history, self.bench.task.output)
        return Result(
            best=best,
            front=front,
            history=tuple(self.archive.history),
            budget=Budget.of(self.archive.history, self.seconds, outcome),
            run=self.store.directory if self.store is not None else None,
        )

    def _outcome(self) -> dict[str, Any]:
        """The best and the front by id, what put them there, and what finding that out took."""
        scored = self.archive.scored
        if not scored:
            raise NothingTrained(
                f"none of {len(self.archive.history)} candidates could be trained "
                f"({_fates(self.archive.history)}): try more generations, a larger population, "
                "or a smaller learning rate of the base network"
            )
        finals = [Final(each, float(each.error or 0.0)) for each in scored]
        cost = None
        if self.settings.finalists:
            self._report("finalists", 0.0)
            start = time.perf_counter()
            again, steps = self._score_finalists(finals)
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

    def _score_finalists(self, scored: Sequence[Final]) -> tuple[list[Final], int]:
        """The best so many and the front, scored once more."""
        chosen = {each.candidate.id: each.candidate for each in scored[: self.settings.finalists]}
        chosen |= {each.id: each for each in pareto([(f.candidate, f.error) for f in scored])}
        with self.bench.threads():
            return final_scores(self.bench, list(chosen.values()))

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
                else self.bench.task.metric.shown(best.error),
                fates=Counter(self.archive.fates),
                candidates=len(self.archive.history),
                per_second=finished * settings.population / seconds if finished else 0.0,
                seconds=seconds,
                seconds_left=seconds / finished * left if finished else None,
            )
        )  # fmt: skip


def _fates(history: Sequence[Candidate]) -> str:
    counts = Counter(each.fate for each in history)
    return ", ".join(f"{count} {fate}" for fate, count in counts.most_common())
