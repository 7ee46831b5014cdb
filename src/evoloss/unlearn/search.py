"""Searching an unlearning loss: the problem, the settings, the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoloss.discovery.budgets import raised
from evoloss.discovery.loop import Run
from evoloss.discovery.progress import Observer
from evoloss.discovery.result import Result
from evoloss.errors import UserError
from evoloss.execution.crew import Limits
from evoloss.execution.journal import FOLDER, Journal
from evoloss.execution.staff import Staff, Workers
from evoloss.lang.text import to_text
from evoloss.store import Store
from evoloss.unlearn import identity
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench, Say
from evoloss.unlearn.methods import Makers
from evoloss.unlearn.problem import KIND, Problem, load_problem
from evoloss.unlearn.settings import UnlearnSettings, unlearn_settings
from evoloss.unlearn.sharing import Sharing
from evoloss.unlearn.workers import check_workers, executor, own_device, usual_shard

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
    workers: Workers = None,
    ray: str | None = None,
    limits: Limits | None = None,
    gpus_per_shard: float = 0.0,
    report: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[Result, Bench]:
    """Discovers an unlearning loss; also returns what it was searched on, to evaluate it there.

    out: directory of a new run; None keeps nothing. observer: told of the progress; say: of what
    else there is to tell. makers: of proposers that need more than the space, by method.
    endpoint, report: kept with the run, for who resumes it; the latter says how what is found is
    to be compared in the end.
    workers, ray, limits: as of `evoloss.search`; 'usual' workers are as many as suit the model and
    the machine, which changes nothing but the time. gpus_per_shard: what Ray sets aside of them for
    each shard of adapters, which are then trained on a GPU; with Ray and without it, on CPUs.
    settings: see `UnlearnSettings`.
    Raises: UserError for data, a model, a setting or a directory that will not do, or if no loss
    could be scored.
    """
    staff = Staff(workers, ray, limits, gpus_per_shard)
    chosen = unlearn_settings(**settings)
    check_workers(problem, staff)
    if "shard" not in settings:
        chosen = replace(chosen, shard=usual_shard(chosen, staff))
    if out is not None:
        Store.check_free(Path(out))
    bench = Bench(problem, chosen, say, own_device(staff, chosen))
    arena = Unlearning(bench, makers)
    bench.sharing = arena.sharing()
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
            "report": dict(report or {}),
            "digests": bench.digests,
        }
        store = Store.create(
            Path(out), task=problem.source, settings=bench.settings.to_json(), about=about
        )
    return _go(arena, store, observer, staff), bench


def resume(
    run: Path | str,
    *,
    problem: Problem | None = None,
    observer: Observer | None = None,
    makers: Makers | None = None,
    say: Say = lambda line: None,
    workers: Workers = None,
    ray: str | None = None,
    limits: Limits | None = None,
    gpus_per_shard: float = 0.0,
    device: str | None = None,
    **budgets: float,
) -> tuple[Result, Bench]:
    """Continues a run that was broken off; its history becomes what it would have been.

    problem: needed only for a run whose data lived in memory. workers, ray, limits, gpus_per_shard:
    as of `search`, and whatever they were before. device: another than the run's, where that is not
    to be had; what follows is then rounded otherwise. budgets: larger ones, with which a finished
    run goes on too.
    """
    staff = Staff(workers, ray, limits, gpus_per_shard)
    store = Store.open(Path(run), write=True)
    try:
        before = UnlearnSettings.from_json(store.settings)
        bench = reopened(store, problem, say, staff, device, **budgets)
        if bench.settings != before:
            store.extend(bench.settings.to_json())
    except BaseException:
        store.close()
        raise
    return _go(Unlearning(bench, makers), store, observer, staff), bench


def _go(arena: Unlearning, store: Store | None, observer: Observer | None, staff: Staff) -> Result:
    """What a run finds. It closes the store at its end; one that cannot begin closes it too."""
    journal = None if store is None else Journal(store.directory / FOLDER)
    try:
        with executor(arena.bench, staff, journal=journal) as chosen:
            arena.executor = chosen
            return Run(arena, store, observer, journal).go()
    finally:
        if store is not None:
            store.close()


def reopened(
    store: Store, problem: Problem | None = None, say: Say = lambda line: None,
    staff: Staff | None = None, device: str | None = None, **budgets: float,
) -> Bench:  # fmt: skip
    """The bench of a stored run, which is given larger budgets or another device if wanted.

    staff: who is to work at it. Raises: UserError for a run of another kind, or without data.
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
    staff = staff or Staff()
    check_workers(problem, staff)
    settings = raised(UnlearnSettings.from_json(store.settings), budgets)
    if device is not None:
        settings = replace(settings, device=device)
    bench = Bench(problem, settings, say, own_device(staff, settings))
    identity.check(str(store.directory), store.about.get("digests", {}), bench.digests)
    bench.sharing = Sharing(**store.about["sharing"])
    return bench
