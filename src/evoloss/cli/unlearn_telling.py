"""What the commands print of unlearning: the problem, what was found, and the comparison."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoloss.cli.options import DEFAULT_AGAINST
from evoloss.cli.shared import say, say_ending

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.discovery.candidate import Candidate
    from evoloss.discovery.result import Result
    from evoloss.unlearn.bench import Bench
    from evoloss.unlearn.contenders import Effort
    from evoloss.unlearn.problem import Problem
    from evoloss.unlearn.settings import UnlearnSettings


def taught(
    console: Console, seed: int, data: str | None, data_dir: str | None,
    forget_rows: int | None, retain_rows: int | None,
) -> Problem:  # fmt: skip
    """The demonstration's problem; says how far its models have been taught."""
    from evoloss.unlearn.demo import demonstration

    with console.status("teaching a small model and its twin") as status:
        return demonstration(
            seed, data, data_dir, forget_rows, retain_rows,
            lambda which, known: status.update(f"teaching {which}: knows {known:.0%}"),
        )  # fmt: skip


def introduce(console: Console, problem: Problem, directory: Path) -> None:
    """What is to be forgotten, by which model, and what is to be known of the data."""
    data = problem.data
    say(
        console,
        f"forget {len(data.forget)} of {data.name} from {problem.model}, run {directory}",
    )
    for note in data.notes:
        say(console, f"note: {note}")


def conclude(
    console: Console, bench: Bench, result: Result, against: str, tune: int | None, seeds: int,
    hired: dict[str, Any],
) -> None:  # fmt: skip
    """The report at the end of a search. hired: who trains for its comparison, see `staff`."""
    from evoloss import tables, unlearn_tables
    from evoloss.discovery import trade_off

    measure = tables.Measure(bench.settings.objective, True)
    console.print(tables.found_loss(result.best, measure))
    console.print(unlearn_tables.front(trade_off.rows(result.history, bench.settings.epochs)))
    ways = Counter(each.operator for each in result.history)
    for line in unlearn_tables.authors(bench.settings.method, ways):
        console.print(line)
    effort = effort_of(result.history, bench.settings, tune)
    compare(console, bench, result.best, against, effort, seeds, result.run, hired)
    console.print(tables.budget(result.budget))
    if result.run is not None:
        run = shlex.quote(str(result.run))
        say(
            console,
            f"the adapter:   {run}/adapter, for peft\n"
            f"the loss:      evoloss export {run} -o loss.py\n"
            f"this and more: evoloss show {run}",
        )
    say_ending(console, result)


def effort_of(history: Sequence[Candidate], settings: UnlearnSettings, tune: int | None) -> Effort:
    """What each hand-written loss is tuned with: `tune` trainings, or what the search took."""
    from evoloss.unlearn.contenders import Effort

    if tune is not None:
        return Effort(tune)
    trainings = len(history) + settings.final_trainings
    return Effort(trainings, sum(each.steps for each in history))


def compare(
    console: Console, bench: Bench, best: Any, against: str, effort: Effort, seeds: int,
    run: Path | None, hired: dict[str, Any], candidate: int | None = None,
) -> None:  # fmt: skip
    """Evaluates beside tuned hand-written losses, prints it, and keeps it with the run.

    candidate: the id of another loss than the run's best, of which only the adapter is kept.
    """
    from evoloss import unlearn_tables
    from evoloss.execution.journal import FOLDER, Journal
    from evoloss.execution.staff import Staff
    from evoloss.store import Store
    from evoloss.unlearn import finish

    names = hand_written(against, bench.has_retain)
    # Opened first: a run that cannot be written to is told before the work, not after it.
    kept = run if candidate is None else None
    name = finish.ADAPTER if candidate is None else f"{finish.ADAPTER}-{candidate}"
    adapter = None if run is None else run / name
    with nullcontext() if kept is None else Store.open(kept, write=True) as store:
        journal = None if kept is None else Journal(kept / FOLDER)
        with console.status("tuning the others") as status:
            record = finish.conclude(
                bench, best, names, effort, seeds, adapter,
                lambda what, share: status.update(f"{what} {share:.0%}"), Staff(**hired),
                journal,
            )  # fmt: skip
        console.print(unlearn_tables.evaluation(record))
        console.print(unlearn_tables.samples(record))
        if store is not None:
            store.add_evaluation(record)
        if journal is not None:
            journal.clear()
    if candidate is not None and adapter is not None and adapter.exists():
        say(console, f"the adapter:   {shlex.quote(str(adapter))}, for peft")


def hand_written(against: str, retain: bool) -> list[str]:
    """The losses and methods to compare with, by name. Raises: UserError for an unknown one."""
    from evoloss.errors import unknown
    from evoloss.unlearn.contenders import names

    chosen = [each.strip() for each in against.split(",") if each.strip()]
    known = names(retain)
    if against == DEFAULT_AGAINST:  # not all of them can do without a retain set
        return [each for each in chosen if each in known]
    for each in chosen:
        if each not in known:
            raise unknown("unlearning loss or method", each, known)
    return chosen
