"""The commands that search losses for unlearning."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli import options, unlearn_options
from evoloss.cli.options import DEFAULT_AGAINST
from evoloss.cli.shared import (
    check_device,
    endless,
    given,
    new_console,
    say,
    staff,
    stoppable,
    watched,
)
from evoloss.cli.unlearn_endpoint import check_asked, endpoint_of, limited
from evoloss.cli.unlearn_telling import conclude, hand_written, introduce, taught
from evoloss.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.propose.llm import Endpoint
    from evoloss.unlearn.problem import Problem

app = typer.Typer()


@app.command()
def demo(
    data: Annotated[
        str | None,
        typer.Option(help="A benchmark, such as tofu:forget01.", show_default="made-up authors"),
    ] = None,
    data_dir: unlearn_options.DataFolder = None,
    forget_rows: unlearn_options.ForgetRows = None,
    retain_rows: unlearn_options.RetainRows = None,
    epochs: Annotated[
        int | None, typer.Option(help="The most that a loss may ask for.", show_default="8")
    ] = None,
    seed: options.Seed = 0,
    losses: Annotated[int, typer.Option(help="How many losses are searched.", min=8)] = 40,
    max_steps: options.MaxSteps = None,
    max_seconds: options.MaxSeconds = None,
    against: options.Against = DEFAULT_AGAINST,
    tune: options.Tune = None,
    eval_seeds: unlearn_options.EvalSeeds = 3,
    workers: unlearn_options.Workers = None,
    out: options.Out = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a small model forget fictitious authors: everything on this machine, in minutes."""
    from evoloss.runs import new_directory
    from evoloss.store import Store
    from evoloss.unlearn.demo import SETTINGS
    from evoloss.unlearn.settings import UnlearnSettings

    console, directory = new_console(), out or new_directory("unlearn-demo")
    hand_written(against, True)  # these three before the models are taught
    Store.check_free(directory)
    # The search's trainings alone, not its steps: those would take longer than a demonstration may.
    tune = tune or losses + UnlearnSettings().final_trainings
    with stoppable(directory):
        problem = taught(console, seed, data, data_dir, forget_rows, retain_rows)
    changes = {
        **SETTINGS, **given(epochs=epochs, max_steps=max_steps, max_seconds=max_seconds),
        "seed": seed, "generations": -(-losses // 8), "population": 8,
    }  # fmt: skip
    hired = staff(workers, unasked="usual")
    _search(
        console, problem, directory, against, tune, eval_seeds, quiet, None, None, hired, changes
    )


@app.command()
def search(
    model: Annotated[
        str, typer.Option(help="Folder, .gguf file or hub name of a causal language model.")
    ],
    forget: unlearn_options.Forget = None,
    retain: unlearn_options.Retain = None,
    holdout: unlearn_options.Holdout = None,
    retain_model: unlearn_options.RetainModel = None,
    data: unlearn_options.Data = None,
    data_dir: unlearn_options.DataFolder = None,
    forget_rows: unlearn_options.ForgetRows = None,
    retain_rows: unlearn_options.RetainRows = None,
    proposer: Annotated[
        str, typer.Option(help="Who proposes losses: gp, llm, mixture, random or zoo.")
    ] = "gp",
    llm_url: unlearn_options.LlmUrl = None,
    llm_model: unlearn_options.LlmModel = None,
    llm_tokens: unlearn_options.LlmTokens = None,
    llm_timeout: unlearn_options.LlmTimeout = None,
    llm_retries: unlearn_options.LlmRetries = None,
    two_phase: unlearn_options.TwoPhase = False,
    llm_input_price: unlearn_options.LlmInputPrice = 0.0,
    llm_output_price: unlearn_options.LlmOutputPrice = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(help="candidates=N, steps=N or seconds=N.",
                     show_default="candidates=40, or what a --max- allows"),
    ] = None,
    max_candidates: options.MaxCandidates = None,
    max_steps: options.MaxSteps = None,
    max_seconds: options.MaxSeconds = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    population: Annotated[int, typer.Option(help="Losses in a generation.", min=1)] = 8,
    epochs: unlearn_options.Epochs = None,
    batch: unlearn_options.Batch = None,
    lr: unlearn_options.Rate = None,
    rank: unlearn_options.Rank = None,
    context: unlearn_options.Context = None,
    objective: unlearn_options.Objective = None,
    local_search: unlearn_options.LocalSearch = None,
    together: unlearn_options.Together = None,
    texts: unlearn_options.Texts = None,
    forget_only: unlearn_options.ForgetOnly = False,
    device: unlearn_options.Device = None,
    workers: unlearn_options.Workers = None,
    ray: options.Ray = None,
    worker_seconds: options.WorkerSeconds = None,
    worker_memory: options.WorkerMemory = None,
    gpus_per_shard: options.GpusPerShard = None,
    others: options.Others = None,
    seed: options.Seed = 0,
    against: options.Against = DEFAULT_AGAINST,
    tune: options.Tune = None,
    eval_seeds: unlearn_options.EvalSeeds = 3,
    out: options.Out = None,
    track: options.Track = None,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Search a loss that makes a model forget one set and keep the other."""
    from evoloss.compare.plan import parse_budget
    from evoloss.runs import new_directory
    from evoloss.unlearn.problem import load_problem
    from evoloss.unlearn.settings import UnlearnSettings, unlearn_settings

    changes = given(
        method=proposer, epochs=epochs, batch=batch, lr=lr, rank=rank, context=context,
        objective=objective, local_search=local_search, together=together, texts=texts, seed=seed,
        population=population, forget_only=forget_only, device=device,
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
    wanted = unlearn_settings(**changes)  # refuses a wrong value before any data is read
    check_device(wanted.device)
    hired = staff(workers, ray, worker_seconds, worker_memory, gpus_per_shard, unasked="usual")
    asks = changes["method"] in ("llm", "mixture")
    check_asked(
        asks, two_phase=two_phase, llm_url=llm_url, llm_model=llm_model, llm_tokens=llm_tokens,
        llm_timeout=llm_timeout is not None, llm_retries=llm_retries is not None,
        llm_input_price=llm_input_price, llm_output_price=llm_output_price,
    )  # fmt: skip
    endpoint = endpoint_of(
        llm_url, llm_model, two_phase, max_total_tokens=llm_tokens,
        input_price=llm_input_price, output_price=llm_output_price,
        **given(timeout=llm_timeout, retries=llm_retries),
    )  # fmt: skip
    if endpoint is None and asks:
        raise UserError(
            f"--proposer {changes['method']} needs --llm-url, such as http://localhost:8000/v1, "
            "and --llm-model"
        )
    limited(endpoint, limits)  # refuses a cost without prices before any data is read
    problem = load_problem(
        model, forget=forget, retain=retain, holdout=holdout, data=data, data_dir=data_dir,
        retain_model=retain_model, forget_rows=forget_rows, retain_rows=retain_rows,
    )  # fmt: skip
    directory = out or new_directory(f"unlearn-{problem.data.name}")
    _search(
        new_console(), problem, directory, against, tune, eval_seeds, quiet, track, endpoint,
        hired, changes,
    )  # fmt: skip


def _search(
    console: Console, problem: Problem, directory: Path, against: str, tune: int | None, seeds: int,
    quiet: bool, track: list[str] | None, endpoint: Endpoint | None, hired: dict[str, Any],
    changes: dict[str, Any],
) -> None:  # fmt: skip
    """A search from its introduction to its report."""
    from evoloss.unlearn import search as searching
    from evoloss.unlearn.methods import makers

    hand_written(against, problem.data.retain is not None and not changes.get("forget_only"))
    introduce(console, problem, directory)
    told = partial(say, console)
    with stoppable(directory):
        with watched(
            console, changes.get("objective", "balance"), quiet, track, directory
        ) as observer:
            result, bench = searching.search(
                problem, out=directory, observer=observer, say=told, endpoint=endpoint,
                makers=makers(limited(endpoint, changes), told),
                report={"against": against, "tune": tune, "seeds": seeds}, **hired, **changes,
            )  # fmt: skip
        conclude(console, bench, result, against, tune, seeds, hired)
