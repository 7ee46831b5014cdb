"""The command that compares proposers of unlearning losses with each other and with known ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli import options, unlearn_options
from evoloss.cli.evidence import names
from evoloss.cli.options import DEFAULT_AGAINST
from evoloss.cli.shared import check_device, comparing, given, new_console, say, staff, takes_no_run
from evoloss.cli.unlearn_endpoint import check_asked, endpoint_of
from evoloss.cli.unlearn_telling import taught
from evoloss.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.compare.unlearning_plan import UnlearnPlan
    from evoloss.propose.llm import Endpoint
    from evoloss.unlearn.problem import Problem

app = typer.Typer()


@app.command()
def compare(
    directory: options.NoRun = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder, .gguf file or hub name of a model.", show_default=False),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="The demonstration's own model, and its made-up authors "
                           "or the --data.")
    ] = False,
    forget: unlearn_options.Forget = None,
    retain: unlearn_options.Retain = None,
    holdout: unlearn_options.Holdout = None,
    retain_model: unlearn_options.RetainModel = None,
    data: unlearn_options.Data = None,
    data_dir: unlearn_options.DataFolder = None,
    forget_rows: unlearn_options.ForgetRows = None,
    retain_rows: unlearn_options.RetainRows = None,
    proposers: Annotated[
        str,
        typer.Option(help="Separated by commas: gp, random, zoo, and with --llm-url llm, mixture."),
    ] = "gp,random,zoo",
    seeds: Annotated[int, typer.Option(help="Searches of each proposer.", min=1)] = 3,
    budget: Annotated[
        str, typer.Option(help="Of each search: candidates=N, steps=N or seconds=N.")
    ] = "candidates=40",
    against: options.Against = DEFAULT_AGAINST,
    tune: options.Tune = None,
    eval_seeds: unlearn_options.EvalSeeds = 3,
    llm_url: unlearn_options.LlmUrl = None,
    llm_model: unlearn_options.LlmModel = None,
    llm_tokens: unlearn_options.LlmTokens = None,
    llm_timeout: unlearn_options.LlmTimeout = None,
    llm_retries: unlearn_options.LlmRetries = None,
    two_phase: unlearn_options.TwoPhase = False,
    population: Annotated[
        int | None, typer.Option(help="Losses in a generation.", show_default="8")
    ] = None,
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
    out: Annotated[Path, typer.Option(help="Where the runs and tables are kept.")] = Path(
        "unlearn-comparison"
    ),
) -> None:  # fmt: skip
    """Compare proposers and tuned hand-written losses; what is done already is not done again."""
    takes_no_run(
        directory, "proposers", " --against npo` compares a run's loss with hand-written ones"
    )  # fmt: skip
    if not demo and model is None:
        raise UserError("nothing to unlearn from: give --model, or --demo")
    own = {"--model": model, "--forget": forget, "--retain": retain, "--holdout": holdout,
           "--retain-model": retain_model}  # fmt: skip
    if demo and (clash := next((name for name, value in own.items() if value), None)):
        raise UserError(f"--demo brings its own models and data: leave {clash} out")
    from evoloss.compare import unlearning_output as output
    from evoloss.compare.plan import parse_budget
    from evoloss.compare.unlearning_plan import UnlearnPlan
    from evoloss.compare.unlearning_summary import summarise
    from evoloss.unlearn.demo import SETTINGS

    changes = given(
        population=population, epochs=epochs, batch=batch, lr=lr, rank=rank, context=context,
        objective=objective, local_search=local_search, together=together, texts=texts,
        forget_only=forget_only or None, device=device,
    )  # fmt: skip
    plan = UnlearnPlan(
        names(proposers), seeds, parse_budget(budget), names(against), out, tune, eval_seeds,
        {**SETTINGS, **changes} if demo else changes,
    )  # fmt: skip
    check_device(device or "cpu")
    hired = staff(workers, ray, worker_seconds, worker_memory, gpus_per_shard, unasked="usual")
    endpoint = endpoint_of(
        llm_url, llm_model, two_phase, max_total_tokens=llm_tokens,
        **given(timeout=llm_timeout, retries=llm_retries),
    )  # fmt: skip
    check_asked(
        bool({"llm", "mixture"} & set(plan.proposers)),
        two_phase=two_phase, llm_url=llm_url, llm_model=llm_model, llm_tokens=llm_tokens,
        llm_timeout=llm_timeout is not None, llm_retries=llm_retries is not None,
    )  # fmt: skip
    console = new_console()
    if demo:
        problem = taught(console, 0, data, data_dir, forget_rows, retain_rows)
    else:
        from evoloss.unlearn.problem import load_problem

        problem = load_problem(
            str(model), forget=forget, retain=retain, holdout=holdout, data=data,
            data_dir=data_dir, retain_model=retain_model, forget_rows=forget_rows,
            retain_rows=retain_rows,
        )  # fmt: skip

    _complete(console, plan, problem, endpoint, hired)
    summary = summarise(plan, problem)
    console.print(output.terminal(summary))
    for path in output.save(summary, out):
        say(console, f"saved {path}")


def _complete(
    console: Console, plan: UnlearnPlan, problem: Problem, endpoint: Endpoint | None,
    hired: dict[str, Any],
) -> None:  # fmt: skip
    """Does what is missing of the comparison, and says what it does. hired: see `staff`."""
    from evoloss.compare.unlearning import run
    from evoloss.execution.staff import Staff

    with comparing(plan.out), console.status("searching") as status:
        run(
            plan, problem, endpoint, partial(say, console),
            lambda what, share: status.update(f"{what} {share:.0%}"), Staff(**hired),
        )  # fmt: skip
