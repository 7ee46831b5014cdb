"""The commands that search losses for unlearning, and what other commands do with such runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli.options import (
    AGAINST,
    DEFAULT_AGAINST,
    GPUS_PER_SHARD,
    MAX_CANDIDATES,
    MAX_COST,
    MAX_SECONDS,
    MAX_STEPS,
    MAX_TOKENS,
    OUT,
    QUIET,
    RAY,
    SEED,
    SET,
    TRACK,
    TUNE,
    WORKER_MEMORY,
    WORKER_SECONDS,
    WORKERS,
)
from evoloss.cli.shared import (
    endless,
    given,
    new_console,
    say_ending,
    staff,
    stoppable,
    watched,
)
from evoloss.cli.unlearn_options import (
    BATCH,
    CONTEXT,
    DATA,
    DATA_FOLDER,
    EPOCHS,
    EVAL_SEEDS,
    FORGET,
    FORGET_ONLY,
    FORGET_ROWS,
    HOLDOUT,
    LLM_INPUT_PRICE,
    LLM_MODEL,
    LLM_OUTPUT_PRICE,
    LLM_TOKENS,
    LLM_URL,
    LOCAL_SEARCH,
    OBJECTIVE,
    RANK,
    RATE,
    RETAIN,
    RETAIN_MODEL,
    RETAIN_ROWS,
    TEXTS,
    TOGETHER,
    TWO_PHASE,
)
from evoloss.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.discovery.result import Result
    from evoloss.propose.llm import Endpoint
    from evoloss.runs import Subject
    from evoloss.unlearn.bench import Bench
    from evoloss.unlearn.methods import Makers
    from evoloss.unlearn.problem import Problem

app = typer.Typer()


@app.command()
def demo(
    data: Annotated[
        str | None,
        typer.Option(help="A benchmark, such as tofu:forget01.", show_default="made-up authors"),
    ] = None,
    data_dir: Annotated[str | None, DATA_FOLDER] = None,
    forget_rows: Annotated[int | None, FORGET_ROWS] = None,
    retain_rows: Annotated[int | None, RETAIN_ROWS] = None,
    epochs: Annotated[
        int | None, typer.Option(help="The most that a loss may ask for.", show_default="8")
    ] = None,
    seed: Annotated[int, SEED] = 0,
    losses: Annotated[int, typer.Option(help="How many losses are searched.", min=8)] = 40,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
    max_seconds: Annotated[float | None, MAX_SECONDS] = None,
    against: Annotated[str, AGAINST] = DEFAULT_AGAINST,
    tune: Annotated[int | None, TUNE] = None,
    eval_seeds: Annotated[int, EVAL_SEEDS] = 3,
    workers: Annotated[int | None, WORKERS] = None,
    out: Annotated[Path | None, OUT] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Make a small model forget fictitious authors: everything on this machine, in minutes."""
    from evoloss.runs import new_directory
    from evoloss.store import Store
    from evoloss.unlearn.demo import SETTINGS

    console, directory = new_console(), out or new_directory("unlearn-demo")
    _check_names(against, True)  # these three before the models are taught
    Store.check_free(directory)
    hired = staff(workers, None, None, None, None)
    with stoppable(directory):
        problem = taught(console, seed, data, data_dir, forget_rows, retain_rows)
    _search(
        console, problem, directory, against, tune, eval_seeds, quiet, None, None, hired,
        {**SETTINGS, **given(epochs=epochs, max_steps=max_steps, max_seconds=max_seconds),
         "seed": seed, "generations": -(-losses // 8), "population": 8},
    )  # fmt: skip


@app.command()
def search(
    model: Annotated[
        str, typer.Option(help="Folder, .gguf file or hub name of a causal language model.")
    ],
    forget: Annotated[str | None, FORGET] = None,
    retain: Annotated[str | None, RETAIN] = None,
    holdout: Annotated[str | None, HOLDOUT] = None,
    retain_model: Annotated[str | None, RETAIN_MODEL] = None,
    data: Annotated[str | None, DATA] = None,
    data_dir: Annotated[str | None, DATA_FOLDER] = None,
    forget_rows: Annotated[int | None, FORGET_ROWS] = None,
    retain_rows: Annotated[int | None, RETAIN_ROWS] = None,
    proposer: Annotated[
        str, typer.Option(help="Who proposes losses: gp, llm, mixture, random or zoo.")
    ] = "gp",
    llm_url: Annotated[str | None, LLM_URL] = None,
    llm_model: Annotated[str | None, LLM_MODEL] = None,
    llm_tokens: Annotated[int | None, LLM_TOKENS] = None,
    two_phase: Annotated[bool, TWO_PHASE] = False,
    llm_input_price: Annotated[float, LLM_INPUT_PRICE] = 0.0,
    llm_output_price: Annotated[float, LLM_OUTPUT_PRICE] = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(help="candidates=N, steps=N or seconds=N.",
                     show_default="candidates=40, or what a --max- allows"),
    ] = None,
    max_candidates: Annotated[int | None, MAX_CANDIDATES] = None,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
    max_seconds: Annotated[float | None, MAX_SECONDS] = None,
    max_tokens: Annotated[int | None, MAX_TOKENS] = None,
    max_cost: Annotated[float | None, MAX_COST] = None,
    population: Annotated[int, typer.Option(help="Losses in a generation.", min=1)] = 8,
    epochs: Annotated[int | None, EPOCHS] = None,
    batch: Annotated[int | None, BATCH] = None,
    lr: Annotated[float | None, RATE] = None,
    rank: Annotated[int | None, RANK] = None,
    context: Annotated[int | None, CONTEXT] = None,
    objective: Annotated[str | None, OBJECTIVE] = None,
    local_search: Annotated[str | None, LOCAL_SEARCH] = None,
    together: Annotated[int | None, TOGETHER] = None,
    texts: Annotated[int | None, TEXTS] = None,
    forget_only: Annotated[bool, FORGET_ONLY] = False,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
    worker_seconds: Annotated[float | None, WORKER_SECONDS] = None,
    worker_memory: Annotated[float | None, WORKER_MEMORY] = None,
    gpus_per_shard: Annotated[float | None, GPUS_PER_SHARD] = None,
    others: Annotated[list[str] | None, SET] = None,
    seed: Annotated[int, SEED] = 0,
    against: Annotated[str, AGAINST] = DEFAULT_AGAINST,
    tune: Annotated[int | None, TUNE] = None,
    eval_seeds: Annotated[int, EVAL_SEEDS] = 3,
    out: Annotated[Path | None, OUT] = None,
    track: Annotated[list[str] | None, TRACK] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:  # fmt: skip
    """Search a loss that makes a model forget one set and keep the other."""
    from evoloss.compare.plan import parse_budget
    from evoloss.runs import new_directory
    from evoloss.unlearn.problem import load_problem
    from evoloss.unlearn.settings import UnlearnSettings, unlearn_settings

    changes = given(
        method=proposer, epochs=epochs, batch=batch, lr=lr, rank=rank, context=context,
        objective=objective, local_search=local_search, together=together, texts=texts, seed=seed,
        population=population, forget_only=forget_only,
    )  # fmt: skip
    limits = given(
        max_candidates=max_candidates, max_steps=max_steps, max_seconds=max_seconds,
        max_tokens=max_tokens, max_cost=max_cost,
    )  # fmt: skip
    if budget is not None or not limits:
        changes |= parse_budget(budget or "candidates=40").settings(population)
    else:
        changes |= endless(limits)
    changes |= limits
    changes |= UnlearnSettings.parsed(others or ())
    unlearn_settings(**changes)  # refuses a wrong value before any data is read
    hired = staff(workers, ray, worker_seconds, worker_memory, gpus_per_shard)
    endpoint = endpoint_of(
        llm_url, llm_model, two_phase, max_total_tokens=llm_tokens,
        input_price=llm_input_price, output_price=llm_output_price,
    )  # fmt: skip
    if endpoint is None and proposer in ("llm", "mixture"):
        raise UserError(
            f"--proposer {proposer} needs --llm-url, such as http://localhost:8000/v1, "
            "and --llm-model"
        )
    _limited(endpoint, limits)  # refuses a cost without prices before any data is read
    problem = load_problem(
        model, forget=forget, retain=retain, holdout=holdout, data=data, data_dir=data_dir,
        retain_model=retain_model, forget_rows=forget_rows, retain_rows=retain_rows,
    )  # fmt: skip
    directory = out or new_directory(f"unlearn-{problem.data.name}")
    _search(
        new_console(), problem, directory, against, tune, eval_seeds, quiet, track, endpoint,
        hired, changes,
    )  # fmt: skip


def resume(
    run: Path, budgets: dict[str, Any], eval_seeds: int, track: list[str] | None, quiet: bool,
    hired: dict[str, Any],
) -> None:  # fmt: skip
    """Continues an unlearning run that was broken off. hired: what `staff` says."""
    from evoloss.store import Store
    from evoloss.unlearn import search as searching

    with Store.open(run, write=False) as store:
        about, records, settings = store.about, store.records(), store.settings
    console = new_console()
    endpoint = _limited(_stored_endpoint(about), {**settings, **budgets})
    with stoppable(run):
        with watched(console, about["metric"], quiet, track, run) as observer:
            result, bench = searching.resume(
                run,
                observer=observer,
                say=_say(console),
                makers=_makers(endpoint, console, records),
                **hired,
                **budgets,
            )
        _conclude(console, bench, result, DEFAULT_AGAINST, None, eval_seeds, hired)


def evaluate(subject: Subject, against: str, tune: int | None, seeds: int) -> None:
    """Compares the loss of an unlearning run with hand-written ones, on the test part."""
    from evoloss.runs import losses
    from evoloss.store import Store
    from evoloss.unlearn.search import reopened

    console, run = new_console(), subject.run
    if run is None:
        raise UserError(
            f"'{subject.label}' is an unlearning loss, which is evaluated on a run's model and "
            "data: `evoloss evaluate RUN --against " + subject.label + "`"
        )
    with Store.open(run, write=False) as store:
        best = losses(store).best
        bench = reopened(store, say=_say(console))
        count = len(store.history()) + bench.settings.final_trainings
    if best is None:
        raise UserError(f"run '{run}' has no scored loss yet: `evoloss resume {run}` first")
    with stoppable(run):
        _compare(console, bench, best, against, tune or count, seeds, run, {})


def _search(
    console: Console, problem: Problem, directory: Path, against: str, tune: int | None, seeds: int,
    quiet: bool, track: list[str] | None, endpoint: Endpoint | None, hired: dict[str, Any],
    changes: dict[str, Any],
) -> None:  # fmt: skip
    from evoloss.unlearn import search as searching

    _check_names(against, problem.data.retain is not None and not changes.get("forget_only"))
    console.print(
        f"forget {len(problem.data.forget)} of {problem.data.name} from {problem.model}, "
        f"run {directory}", markup=False, soft_wrap=True,
    )  # fmt: skip
    for note in problem.data.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    with stoppable(directory):
        with watched(
            console, changes.get("objective", "balance"), quiet, track, directory
        ) as observer:
            result, bench = searching.search(
                problem, out=directory, observer=observer, say=_say(console),
                makers=_makers(_limited(endpoint, changes), console), endpoint=endpoint, **hired,
                **changes,
            )  # fmt: skip
        _conclude(console, bench, result, against, tune, seeds, hired)


def _conclude(
    console: Console, bench: Bench, result: Result, against: str, tune: int | None, seeds: int,
    hired: dict[str, Any],
) -> None:  # fmt: skip
    from evoloss import tables

    measure = tables.Measure(bench.settings.objective, True)
    console.print(tables.found_loss(result.best, measure))
    console.print(tables.front(result.front, measure))
    count = len(result.history) + bench.settings.final_trainings
    _compare(console, bench, result.best, against, tune or count, seeds, result.run, hired)
    console.print(tables.budget(result.budget))
    if result.run is not None:
        run = shlex.quote(str(result.run))
        console.print(
            f"the adapter:   {run}/adapter, for peft\n"
            f"the loss:      evoloss export {run} -o loss.py\n"
            f"this and more: evoloss show {run}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    say_ending(console, result)


def _compare(
    console: Console, bench: Bench, best: Any, against: str, budget: int, seeds: int,
    run: Path | None, hired: dict[str, Any],
) -> None:  # fmt: skip
    from evoloss import unlearn_tables
    from evoloss.execution.staff import Staff
    from evoloss.store import Store
    from evoloss.unlearn.finish import conclude

    names = _check_names(against, bench.has_retain)
    # Opened first: a run that cannot be written to is told before the work, not after it.
    with nullcontext() if run is None else Store.open(run, write=True) as store:
        with console.status("tuning the others") as status:
            record = conclude(
                bench, best, names, budget, seeds, run,
                lambda what, share: status.update(f"{what} {share:.0%}"), Staff(**hired),
            )  # fmt: skip
        console.print(unlearn_tables.evaluation(record))
        console.print(unlearn_tables.samples(record))
        if store is not None:
            store.add_evaluation(record)


def _check_names(against: str, retain: bool) -> list[str]:
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


def endpoint_of(
    url: str | None, model: str | None, two_phase: bool, **options: Any
) -> Endpoint | None:
    """Of the proposers that ask a language model; None if none is named.

    options: of the endpoint, where they are known.
    """
    if url is None and model is None:
        return None
    if not url or not model:
        raise UserError("a language model needs both --llm-url and --llm-model")
    from evoloss.propose.llm import Endpoint

    return Endpoint(url, model, two_phase=two_phase, **options)


def _limited(endpoint: Endpoint | None, settings: Mapping[str, Any]) -> Endpoint | None:
    """The endpoint, held to the search's own budgets of tokens and cost."""
    if endpoint is None:
        return None
    tokens, cost = settings.get("max_tokens"), settings.get("max_cost")
    both = [each for each in (endpoint.max_total_tokens, tokens) if each is not None]
    return replace(endpoint, max_total_tokens=min(both, default=None), max_cost=cost)


def _stored_endpoint(about: dict[str, Any]) -> Endpoint | None:
    if not about.get("endpoint"):
        return None
    from evoloss.propose.llm import Endpoint

    return Endpoint(**about["endpoint"])


def _makers(
    endpoint: Endpoint | None, console: Console, records: Sequence[dict[str, Any]] = ()
) -> Makers | None:
    if endpoint is None:
        return None
    from evoloss.propose.llm import usage_of
    from evoloss.unlearn.methods import makers

    return makers(endpoint, _say(console), usage_of(records))


def _say(console: Console) -> Any:
    return lambda line: console.print(line, markup=False, soft_wrap=True)
