"""Proposers of unlearning losses and hand-written losses at one budget: what is run and kept.

Each search is a run of its own; beside them lies a file for each seed with the hand-written losses,
tuned in as many trainings. All of one seed are evaluated side by side, on the same adapters and
minibatches, once; the record is kept with each run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from evoloss.compare.plan import Budget
from evoloss.discovery.progress import Progress
from evoloss.discovery.randomness import Purpose
from evoloss.errors import NothingTrained, UserError, unknown
from evoloss.execution.executor import Executor
from evoloss.execution.staff import Staff
from evoloss.runs import losses
from evoloss.store import Store
from evoloss.store.database import FILE
from evoloss.unlearn import search as searching
from evoloss.unlearn.contenders import Contender, names, trials, tuned
from evoloss.unlearn.evaluate import evaluate, record
from evoloss.unlearn.finish import found_contender
from evoloss.unlearn.methods import makers
from evoloss.unlearn.phase import SEARCHING, TESTING
from evoloss.unlearn.problem import KIND, Problem
from evoloss.unlearn.settings import METHODS, UnlearnSettings, unlearn_settings
from evoloss.unlearn.workers import SHARD, check_workers, executor
from evoloss.wording import counted

if TYPE_CHECKING:
    from evoloss.propose.llm import Endpoint
    from evoloss.unlearn.bench import Bench

Say = Callable[[str], None]
Tell = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One search: a proposer with a seed."""

    proposer: str
    seed: int
    directory: Path
    settings: UnlearnSettings


@dataclass(frozen=True)
class UnlearnPlan:
    """Proposers × seeds and hand-written losses × seeds, on one problem.

    tune: trainings of each hand-written loss; None takes as many as a search has candidates.
    eval_seeds: adapters of each loss on the test part. settings: of every search.
    """

    proposers: Sequence[str]
    seeds: int
    budget: Budget
    against: Sequence[str]
    out: Path
    tune: int | None = None
    eval_seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for proposer in self.proposers:
            if proposer not in METHODS:
                raise unknown("proposer", proposer, METHODS)
        for name, count in (("seeds", self.seeds), ("evaluation seeds", self.eval_seeds)):
            if count < 1:
                raise UserError(f"{count} {name}: give at least 1")
        if not self.proposers or not self.against:
            raise UserError("nothing to compare: name at least one proposer and one known loss")
        if self.tune is None and self.budget.kind != "candidates":
            raise UserError(
                f"a budget of {self.budget} does not say how many trainings a hand-written loss "
                "is tuned in: give --tune N"
            )
        for cell in self.cells():
            self.trainings(cell.settings)

    def cells(self) -> Iterator[Cell]:
        """The searches, seed by seed."""
        for seed in range(self.seeds):
            yield from self.cells_of(seed)

    def cells_of(self, seed: int) -> list[Cell]:
        """The searches of one seed."""
        return [
            Cell(proposer, seed, self.out / f"{proposer}-{seed}", self._settings(proposer, seed))
            for proposer in self.proposers
        ]

    def trainings(self, settings: UnlearnSettings) -> int:
        """How many trainings a hand-written loss is tuned in."""
        return self.tune or settings.generations * settings.population + settings.final_trainings

    def file(self, seed: int) -> Path:
        """Where the hand-written losses of a seed are kept."""
        return self.out / f"hand-written-{seed}.json"

    def _settings(self, proposer: str, seed: int) -> UnlearnSettings:
        population = self.settings.get("population", UnlearnSettings.population)
        changes = {**self.settings, **self.budget.settings(population)}
        return unlearn_settings(**changes, method=proposer, seed=seed)


def run(
    plan: UnlearnPlan, problem: Problem, endpoint: Endpoint | None = None,
    say: Say = lambda line: None, tell: Tell = lambda what, share: None,
    staff: Staff | None = None,
) -> None:  # fmt: skip
    """Completes the comparison; call it again after an interruption and it goes on.

    endpoint: of the proposers that ask a language model. say: told what is being done, line by
    line. staff: who trains, None: this process; whoever it was before.
    Raises UserError where a directory holds other runs.
    """
    staff = staff or Staff()
    check_workers(problem, staff)
    if staff.elsewhere:
        plan = replace(plan, settings={"shard": SHARD, **plan.settings})
    forget_only = next(plan.cells()).settings.forget_only
    known = names(problem.data.retain is not None and not forget_only)
    for name in plan.against:
        if name not in known:
            raise unknown("unlearning loss or method", name, known)
    for proposer in plan.proposers:
        if proposer in ("llm", "mixture") and endpoint is None:
            raise UserError(f"proposer '{proposer}' needs --llm-url and --llm-model")
    say = _notes_once(say)
    for seed in range(plan.seeds):
        cells = plan.cells_of(seed)
        _check_hand_written(plan, problem, seed)
        for cell in cells:
            _complete(cell, problem, endpoint, say, tell, staff)
        _conclude(plan, problem, cells, say, tell, staff)


def _notes_once(say: Say) -> Say:
    """Every search has the same notes on its data."""
    told: set[str] = set()

    def once(line: str) -> None:
        if line not in told or not line.startswith("note:"):
            told.add(line)
            say(line)

    return once


def _complete(
    cell: Cell, problem: Problem, endpoint: Endpoint | None, say: Say, tell: Tell, staff: Staff
) -> None:
    """The search of a cell: nothing if it is done, the rest of it, or all of it."""
    name = f"{cell.proposer}, seed {cell.seed}"

    def observe(progress: Progress) -> None:
        tell(f"{name}: {progress.stage}", progress.generation / progress.generations)

    try:
        if not (cell.directory / FILE).exists():
            say(name)
            asked = endpoint if cell.proposer in ("llm", "mixture") else None
            searching.search(
                problem, out=cell.directory, observer=observe, say=say, endpoint=asked,
                makers=makers(asked, say), **vars(staff), **vars(cell.settings),
            )  # fmt: skip
            return
        with Store.open(cell.directory, write=False) as store:
            _check(store, cell, problem)
            done, records = store.outcome is not None, store.records()
            asked = endpoint if store.about.get("endpoint") else None
        if not done:
            say(f"{name}, from where it was broken off")
            searching.resume(
                cell.directory, problem=problem, observer=observe, say=say,
                makers=makers(asked, say, records), **vars(staff),
            )  # fmt: skip
    except NothingTrained as error:
        say(f"{name}: {error}")  # which counts as a failure in the table


def _check(store: Store, cell: Cell, problem: Problem) -> None:
    found = UnlearnSettings.from_json(store.settings)
    # A search that is not told how precise its model is to be keeps what it took.
    precision = cell.settings.precision or found.precision
    same = (
        store.about.get("kind") == KIND
        and store.about["task"] == problem.data.name
        and store.task == problem.source
        and _comparable(found) == _comparable(replace(cell.settings, precision=precision))
    )
    if not same:
        raise UserError(
            f"run '{cell.directory}' has another model, data, budget or settings: "
            "choose another --out"
        )


def _comparable(settings: UnlearnSettings) -> UnlearnSettings:
    """The settings without what only says how the work is divided: workers may come and go."""
    return replace(settings, shard=None)


def _conclude(
    plan: UnlearnPlan, problem: Problem, cells: Sequence[Cell], say: Say, tell: Tell, staff: Staff
) -> None:
    """Tunes the hand-written losses of a seed and evaluates whatever has not been."""
    seed = cells[0].seed
    kept = hand_written(plan, seed)
    missing = [each for each in cells if evaluation(each, plan.eval_seeds) is None]
    missing = [each for each in missing if _finished(each)]
    untuned = [name for name in plan.against if name not in kept]
    if not missing and not untuned:
        return
    with Store.open(cells[0].directory, write=False) as store:
        bench = searching.reopened(store, problem, say, staff)
    with executor(bench, staff, (SEARCHING, TESTING)) as where, bench.sharing.applied():
        new, contenders = {}, []
        for name in untuned:
            budget = counted(plan.trainings(bench.settings), "training")
            say(f"{name}, seed {seed}: tuning in {budget}")
            new[name], contender = _tuned(plan, bench, name, tell, where)
            if contender is not None:
                contenders.append(contender)
        for cell in missing:
            contenders.append(_found(cell))
        if contenders:
            say(f"test, seed {seed}: {', '.join(each.label for each in contenders)}")
            outcome = evaluate(bench, contenders, plan.eval_seeds, partial(tell, "test"), where)
            found = record(outcome)
            rows = {row["label"]: row for row in found["rows"]}
            for name in new:
                new[name]["row"] = rows.get(name)
    if new:
        kept = {**kept, **new}
        _write_hand_written(plan, problem, seed, kept)
    for cell in missing:
        with Store.open(cell.directory, write=True) as store:
            store.add_evaluation(_of_one(found, cell.proposer, kept))


def _tuned(
    plan: UnlearnPlan, bench: Bench, name: str, tell: Tell, where: Executor
) -> tuple[Record, Contender | None]:
    """What is kept of a hand-written loss, and the best of its settings, if any could be trained.

    It is scored on the adapters that the finalists of a search are scored on.
    """
    begun, budget = time.perf_counter(), plan.trainings(bench.settings)
    try:
        best, steps = tuned(bench, name, budget, partial(tell, f"tuning {name}"), where)
    except UserError as error:
        bench.say(str(error))
        return {"reason": str(error), "score": None, "steps": 0, "seconds": 0.0}, None
    scores: list[float | None] = []
    for number in range(1, 1 + bench.settings.final_seeds):
        again = trials(bench, bench.searching, [best], Purpose.FITNESS_BATCHES, number, where)
        (tried,) = again.run(bench.start_of(number))
        scores.append(tried.score)
        steps += tried.steps
    able = [each for each in scores if each is not None]
    score = fmean(able) if len(able) == len(scores) else None
    seconds = time.perf_counter() - begun
    return {"score": score, "steps": steps, "seconds": seconds}, replace(best, label=name)


def _found(cell: Cell) -> Contender:
    with Store.open(cell.directory, write=False) as store:
        best = losses(store).best
    assert best is not None  # its search is finished
    return replace(found_contender(best, cell.settings.lr), label=cell.proposer)


def _finished(cell: Cell) -> bool:
    with Store.open(cell.directory, write=False) as store:
        return store.outcome is not None


def evaluation(cell: Cell, seeds: int) -> Record | None:
    """The record of a run's evaluation with so many adapters, if there is one."""
    with Store.open(cell.directory, write=False) as store:
        for each in store.evaluations():
            rows = {row["label"]: row for row in each.get("rows", ())}
            found = rows.get("found")
            if each.get("kind") == KIND and found and len(found["values"]) == seeds:
                return each
    return None


def _of_one(found: Record, proposer: str, kept: Mapping[str, Record]) -> Record:
    """The evaluation of one run: its loss, called `found`, beside the hand-written ones."""
    own = next(row for row in found["rows"] if row["label"] == proposer)
    others = [each["row"] for each in kept.values() if each.get("row")]
    samples = [
        {**each, "after": {"found": each["after"][proposer]}}
        for each in found["samples"]
        if proposer in each["after"]
    ]
    return {**found, "rows": [{**own, "label": "found"}, *others], "samples": samples}


def hand_written(plan: UnlearnPlan, seed: int) -> dict[str, Record]:
    """The hand-written losses of a seed that are tuned and evaluated, by name."""
    kept: dict[str, Record] = _file(plan, seed).get("losses", {})
    return kept


def _file(plan: UnlearnPlan, seed: int) -> Record:
    path = plan.file(seed)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["losses"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"cannot read '{path}': delete it, and its losses are tuned anew") from None
    return dict(found)


def _circumstances(plan: UnlearnPlan, problem: Problem, seed: int) -> Record:
    """What the numbers of a file of hand-written losses depend on, as plain data."""
    settings = plan.cells_of(seed)[0].settings
    own = _comparable(settings).to_json()
    del own["method"]
    plain = {
        "task": problem.data.name,
        "source": problem.source,
        "settings": own,
        "trainings": plan.trainings(settings),
        "eval_seeds": plan.eval_seeds,
    }
    return dict(json.loads(json.dumps(plain)))


def _check_hand_written(plan: UnlearnPlan, problem: Problem, seed: int) -> None:
    file, wanted = _file(plan, seed), _circumstances(plan, problem, seed)
    if file and any(file.get(name) != value for name, value in wanted.items()):
        raise UserError(
            f"'{plan.file(seed)}' was made with another model, data, budget or settings: "
            "choose another --out"
        )


def _write_hand_written(
    plan: UnlearnPlan, problem: Problem, seed: int, kept: Mapping[str, Record]
) -> None:
    """Whole or not at all."""
    path = plan.file(seed)
    partial_file = path.with_name(f"{path.name}.partial")
    text = json.dumps({**_circumstances(plan, problem, seed), "losses": kept}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(text, encoding="utf-8")
        os.replace(partial_file, path)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}") from error
