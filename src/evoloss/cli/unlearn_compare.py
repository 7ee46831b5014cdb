"""The command that compares proposers of unlearning losses with each other and with known ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from evoloss.cli.evidence import names
from evoloss.cli.options import AGAINST, DEFAULT_AGAINST, TUNE
from evoloss.cli.shared import given, new_console, say
from evoloss.cli.unlearn_endpoint import endpoint_of
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
    LLM_MODEL,
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
from evoloss.cli.unlearn_telling import taught
from evoloss.errors import UserError

app = typer.Typer()


@app.command()
def compare(
    model: Annotated[
        str | None,
        typer.Option(help="Folder, .gguf file or hub name of a model.", show_default=False),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="The demonstration's own model, and its made-up authors "
                           "or the --data.")
    ] = False,
    forget: Annotated[str | None, FORGET] = None,
    retain: Annotated[str | None, RETAIN] = None,
    holdout: Annotated[str | None, HOLDOUT] = None,
    retain_model: Annotated[str | None, RETAIN_MODEL] = None,
    data: Annotated[str | None, DATA] = None,
    data_dir: Annotated[str | None, DATA_FOLDER] = None,
    forget_rows: Annotated[int | None, FORGET_ROWS] = None,
    retain_rows: Annotated[int | None, RETAIN_ROWS] = None,
    proposers: Annotated[
        str,
        typer.Option(help="Separated by commas: gp, random, zoo, and with --llm-url llm, mixture."),
    ] = "gp,random,zoo",
    seeds: Annotated[int, typer.Option(help="Searches of each proposer.", min=1)] = 3,
    budget: Annotated[
        str, typer.Option(help="Of each search: candidates=N, steps=N or seconds=N.")
    ] = "candidates=40",
    against: Annotated[str, AGAINST] = DEFAULT_AGAINST,
    tune: Annotated[int | None, TUNE] = None,
    eval_seeds: Annotated[int, EVAL_SEEDS] = 3,
    llm_url: Annotated[str | None, LLM_URL] = None,
    llm_model: Annotated[str | None, LLM_MODEL] = None,
    llm_tokens: Annotated[int | None, LLM_TOKENS] = None,
    two_phase: Annotated[bool, TWO_PHASE] = False,
    population: Annotated[
        int | None, typer.Option(help="Losses in a generation.", show_default="8")
    ] = None,
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
    out: Annotated[Path, typer.Option(help="Where the runs and tables are kept.")] = Path(
        "unlearn-comparison"
    ),
) -> None:  # fmt: skip
    """Compare proposers and tuned hand-written losses; what is done already is not done again."""
    if not demo and model is None:
        raise UserError("nothing to unlearn from: give --model, or --demo")
    own = {"--model": model, "--forget": forget, "--retain": retain, "--holdout": holdout,
           "--retain-model": retain_model}  # fmt: skip
    if demo and (clash := next((name for name, value in own.items() if value), None)):
        raise UserError(f"--demo brings its own models and data: leave {clash} out")
    from evoloss.compare import unlearning_output as output
    from evoloss.compare.plan import parse_budget
    from evoloss.compare.unlearning import UnlearnPlan, run
    from evoloss.compare.unlearning_summary import summarise
    from evoloss.unlearn.demo import SETTINGS

    changes = given(
        population=population, epochs=epochs, batch=batch, lr=lr, rank=rank, context=context,
        objective=objective, local_search=local_search, together=together, texts=texts,
        forget_only=forget_only or None,
    )  # fmt: skip
    plan = UnlearnPlan(
        names(proposers), seeds, parse_budget(budget), names(against), out, tune, eval_seeds,
        {**SETTINGS, **changes} if demo else changes,
    )  # fmt: skip
    endpoint = endpoint_of(llm_url, llm_model, two_phase, max_total_tokens=llm_tokens)
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

    try:
        with console.status("searching") as status:
            run(
                plan, problem, endpoint, partial(say, console),
                lambda what, share: status.update(f"{what} {share:.0%}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"stopped; what is finished is in {out}: run the same command again", err=True)
        raise typer.Exit(130) from None
    summary = summarise(plan, problem)
    console.print(output.terminal(summary))
    for path in output.save(summary, out):
        say(console, f"saved {path}")
