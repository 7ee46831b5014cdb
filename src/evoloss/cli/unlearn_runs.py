"""What `resume` and `evaluate` do with a run of unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoloss.cli.options import DEFAULT_AGAINST
from evoloss.cli.shared import new_console, say, stoppable, watched
from evoloss.cli.unlearn_endpoint import limited, stored_endpoint
from evoloss.cli.unlearn_telling import compare, conclude, effort_of
from evoloss.errors import UserError

if TYPE_CHECKING:
    from evoloss.runs import Subject


def resume(
    run: Path, budgets: dict[str, Any], eval_seeds: int | None, track: list[str] | None,
    quiet: bool, device: str | None, hired: dict[str, Any],
) -> None:  # fmt: skip
    """Continues an unlearning run that was broken off, to the report that its search was to end in.

    eval_seeds, device: other than the search was told; None: those. hired: what `staff` says.
    """
    from evoloss.store import Store
    from evoloss.unlearn import search as searching
    from evoloss.unlearn.methods import makers

    with Store.open(run, write=False) as store:
        about, records, settings = store.about, store.records(), store.settings
    console = new_console()
    told = partial(say, console)
    endpoint = limited(stored_endpoint(about), {**settings, **budgets})
    with stoppable(run):
        with watched(console, about["metric"], quiet, track, run) as observer:
            result, bench = searching.resume(
                run,
                observer=observer,
                say=told,
                makers=makers(endpoint, told, records),
                device=device,
                **hired,
                **budgets,
            )
        conclude(console, bench, result, *_report(about, eval_seeds), hired)


def _report(about: Mapping[str, Any], seeds: int | None) -> tuple[str, int | None, int]:
    """What to compare with, in how many trainings each is tuned, and how many adapters."""
    told = {"against": DEFAULT_AGAINST, "tune": None, "seeds": 3, **about.get("report", {})}
    return told["against"], told["tune"], seeds or told["seeds"]


def evaluate(
    subject: Subject, against: str, tune: int | None, seeds: int, device: str | None = None
) -> None:
    """Compares the loss of an unlearning run with hand-written ones, on the test part."""
    from evoloss.execution.staff import USUAL, Staff
    from evoloss.runs import found
    from evoloss.store import Store
    from evoloss.unlearn.search import reopened

    console, run = new_console(), subject.run
    if run is None:
        raise UserError(
            f"'{subject.label}' is an unlearning loss, which is evaluated on a run's model and "
            "data: `evoloss evaluate RUN --against " + subject.label + "`"
        )
    with Store.open(run, write=False) as store:
        chosen = found(store, subject.candidate)
        hired: dict[str, Any] = {"workers": USUAL}
        bench = reopened(store, None, partial(say, console), Staff(**hired), device)
        effort = effort_of(store.history(), bench.settings, tune)
    with stoppable(run):
        compare(console, bench, chosen, against, effort, seeds, run, hired, subject.candidate)
