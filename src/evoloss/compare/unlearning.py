"""Proposers of unlearning losses and hand-written losses at one budget: what is run and kept.

Each search is a run of its own. All losses of one seed are evaluated side by side, on the same
adapters and minibatches, once; the record is kept with each run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from evoloss.compare import hand_written
from evoloss.compare.hand_written import Record, Tell
from evoloss.compare.unlearning_plan import Cell, UnlearnPlan, comparable
from evoloss.discovery.progress import Progress
from evoloss.errors import NothingTrained, UserError, unknown
from evoloss.execution.journal import FOLDER, Journal
from evoloss.execution.staff import Staff
from evoloss.runs import losses
from evoloss.store import Store
from evoloss.store.database import FILE
from evoloss.unlearn import identity
from evoloss.unlearn import search as searching
from evoloss.unlearn.contenders import Contender, Effort, names
from evoloss.unlearn.evaluate import evaluate, record
from evoloss.unlearn.finish import found_contender
from evoloss.unlearn.methods import makers
from evoloss.unlearn.phase import TESTING
from evoloss.unlearn.problem import KIND, Problem
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.workers import check_workers, executor, usual_shard
from evoloss.wording import counted

if TYPE_CHECKING:
    from evoloss.propose.llm import Endpoint
    from evoloss.unlearn.bench import Bench

Say = Callable[[str], None]


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
    if "shard" not in plan.settings:
        shard = usual_shard(next(plan.cells()).settings, staff)
        plan = replace(plan, settings={**plan.settings, "shard": shard})
    known = names(_has_retain(problem, next(plan.cells())))
    for name in plan.against:
        if name not in known:
            raise unknown("unlearning loss or method", name, known)
    for proposer in plan.proposers:
        if proposer in ("llm", "mixture") and endpoint is None:
            raise UserError(f"proposer '{proposer}' needs --llm-url and --llm-model")
    say = _notes_once(say)
    for seed in range(plan.seeds):
        cells = plan.cells_of(seed)
        hand_written.check(plan, problem, seed)
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
        and comparable(found) == comparable(replace(cell.settings, precision=precision))
    )
    if not same:
        raise UserError(
            f"run '{cell.directory}' has another model, data, budget or settings: "
            "choose another --out"
        )
    before = store.about.get("digests", {})
    identity.check(str(cell.directory), before, identity.of_data(problem.data))


def _conclude(
    plan: UnlearnPlan, problem: Problem, cells: Sequence[Cell], say: Say, tell: Tell, staff: Staff
) -> None:
    """Tunes the hand-written losses of a seed and evaluates whatever has not been."""
    seed = cells[0].seed
    kept = hand_written.read(plan, seed)
    missing = [each for each in cells if evaluation(each, plan.eval_seeds) is None]
    missing = [each for each in missing if _finished(each)]
    untuned = [name for name in plan.against if name not in kept]
    retain = _has_retain(problem, cells[0])
    if not missing and not untuned and not hand_written.unevaluated(kept, retain):
        return
    with Store.open(cells[0].directory, write=False) as store:
        bench = searching.reopened(store, problem, say, staff)
    journal = Journal(cells[0].directory / FOLDER)
    phases = (*bench.selecting, TESTING)
    with executor(bench, staff, *phases, journal=journal) as where, bench.sharing.applied():
        effort = _effort(plan, bench, cells)
        for name in untuned:
            say(f"{name}, seed {seed}: tuning in {counted(effort.trainings, 'training')} or more")
            kept[name] = hand_written.tune(bench, name, effort, tell, where)
            hand_written.keep(plan, problem, seed, kept)
            journal.clear()
        contenders = [*hand_written.unevaluated(kept, retain), *map(_found, missing)]
        if not contenders:
            return
        say(f"test, seed {seed}: {', '.join(each.label for each in contenders)}")
        outcome = evaluate(bench, contenders, plan.eval_seeds, partial(tell, "test"), where)
    found = record(outcome)
    rows = {row["label"]: row for row in found["rows"]}
    kept = {name: {**each, "row": rows.get(name, each.get("row"))} for name, each in kept.items()}
    hand_written.keep(plan, problem, seed, kept)
    for cell in missing:
        with Store.open(cell.directory, write=True) as store:
            own = _of_one(found, cell.proposer, kept)
            store.add_evaluation({**own, "comparison": _mark(cell, plan.eval_seeds)})
    journal.clear()


def _effort(plan: UnlearnPlan, bench: Bench, cells: Sequence[Cell]) -> Effort:
    """What each hand-written loss is tuned with: the most steps that a search of the seed took."""
    trainings = plan.trainings(bench.settings)
    if plan.tune is not None:
        return Effort(trainings)
    most = 0
    for cell in filter(_finished, cells):
        with Store.open(cell.directory, write=False) as store:
            most = max(most, sum(each.steps for each in store.history()))
    return Effort(trainings, most)


def _has_retain(problem: Problem, cell: Cell) -> bool:
    """Whether the losses of a comparison are of what is to be kept, too."""
    return problem.data.retain is not None and not cell.settings.forget_only


def _found(cell: Cell) -> Contender:
    with Store.open(cell.directory, write=False) as store:
        best = losses(store).best
    assert best is not None  # its search is finished
    return replace(found_contender(best, cell.settings.lr), label=cell.proposer)


def _finished(cell: Cell) -> bool:
    with Store.open(cell.directory, write=False) as store:
        return store.outcome is not None


def evaluation(cell: Cell, seeds: int) -> Record | None:
    """The record of the comparison's own evaluation of a run with so many adapters, if any."""
    with Store.open(cell.directory, write=False) as store:
        records, own = store.evaluations(), _mark(cell, seeds)
    return next((each for each in records if each.get("comparison") == own), None)


def _mark(cell: Cell, seeds: int) -> Record:
    """What such a record is known by: users keep evaluations of their own beside it."""
    return {"seed": cell.seed, "adapters": seeds}


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
