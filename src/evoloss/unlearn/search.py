"""Searching an unlearning loss: the problem, the settings, the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoloss.discovery.budgets import raised
from evoloss.discovery.loop import Run
from evoloss.discovery.progress import Observer
from evoloss.discovery.result import Result
from evoloss.errors import UserError
from evoloss.lang.text import to_text
from evoloss.store import Store
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench, Say, Sharing
from evoloss.unlearn.methods import Makers
from evoloss.unlearn.problem import KIND, Problem, load_problem
from evoloss.unlearn.settings import UnlearnSettings, unlearn_settings

if TYPE_CHECKING:
    from evoloss.propose.llm import Endpoint


def search(
    problem: Problem,
    *,
    out: Path | str | None = None,
    observer: Observer | None = None,
    makers: Makers | None = None,
    endpoint: Endpoint | None = None,
    say: Say = lambda line: None,
    **settings: Any,
) -> tuple[Result, Bench]:
    """Discovers an unlearning loss; also returns what it was searched on, to evaluate it there.

    out: directory of a new run; None keeps nothing. observer: told of the progress; say: of what
    else there is to tell. makers: of proposers that need more than the space, by method.
    endpoint: kept with the run, for who resumes it.
    settings: see `UnlearnSettings`.
    Raises: UserError for data, a model, a setting or a directory that will not do, or if no loss
    could be scored.
    """
    chosen = unlearn_settings(**settings)
    if out is not None:
        Store.check_free(Path(out))
    bench = Bench(problem, chosen, say)
    arena = Unlearning(bench, makers)
    bench.sharing = arena.fastest()
    store = None
    if out is not None:
        about = {
            "kind": KIND,
            "task": problem.data.name,
            "network": Path(problem.model).name,
            "metric": chosen.objective,
            "higher_is_better": True,
            "output": None,
            "usual_loss": to_text(arena.usual),
            "sharing": asdict(bench.sharing),
            "endpoint": None if endpoint is None else asdict(endpoint),
        }
        store = Store.create(Path(out), task=problem.source, settings=chosen.to_json(), about=about)
    return _run(arena, store, observer).go(), bench


def resume(
    run: Path | str,
    *,
    problem: Problem | None = None,
    observer: Observer | None = None,
    makers: Makers | None = None,
    say: Say = lambda line: None,
    **budgets: float,
) -> tuple[Result, Bench]:
    """Continues a run that was broken off; its history becomes what it would have been.

    problem: needed only for a run whose data lived in memory. budgets: larger ones, with which a
    finished run goes on too.
    """
    store = Store.open(Path(run), write=True)
    try:
        bench = reopened(store, problem, say, **budgets)
    except BaseException:
        store.close()
        raise
    return _run(Unlearning(bench, makers), store, observer).go(), bench


def _run(arena: Unlearning, store: Store | None, observer: Observer | None) -> Run:
    """A run, which closes the store at its end; one that cannot begin closes it too."""
    try:
        return Run(arena, store, observer)
    except BaseException:
        if store is not None:
            store.close()
        raise


def reopened(
    store: Store, problem: Problem | None = None, say: Say = lambda line: None, **budgets: float
) -> Bench:
    """The bench of a stored run, which is given larger budgets if there are any.

    Raises: UserError for a run of another kind, or without data.
    """
    if store.about.get("kind") != KIND:
        raise UserError(f"run '{store.directory}' is no unlearning run: `evoloss resume` it")
    if problem is None:
        if store.task is None:
            raise UserError(
                f"run '{store.directory}' was started from Python with data in memory: "
                "resume it there, with evoloss.unlearn.search.resume(run, problem=…)"
            )
        problem = load_problem(**store.task)
    settings = raised(UnlearnSettings.from_json(store.settings), budgets)
    bench = Bench(problem, settings, say)
    if budgets:
        store.extend(settings.to_json())
    bench.sharing = Sharing(**store.about["sharing"])
    return bench
