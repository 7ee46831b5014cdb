"""What a search leaves behind: an adapter, and a comparison with hand-written losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from evoloss.discovery.result import FoundLoss
from evoloss.errors import NoWorkers, UserError
from evoloss.execution.journal import Journal
from evoloss.execution.staff import Staff
from evoloss.unlearn.adapters import save
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.contenders import Contender, Effort, tuned
from evoloss.unlearn.evaluate import evaluate, record
from evoloss.unlearn.phase import TESTING
from evoloss.unlearn.workers import executor

ADAPTER = "adapter"
"""The folder of a run that holds the adapter of its best loss, for `peft`."""

Tell = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done."""


def found_contender(found: FoundLoss, lr: float) -> Contender:
    """A found loss with what the search chose for it. lr: of the settings."""
    rate = found.candidate.rate * lr if found.lr is None else found.lr
    return Contender("found", found.expression, epochs=found.candidate.epochs, lr=rate)


def conclude(
    bench: Bench,
    found: FoundLoss,
    against: Sequence[str],
    effort: Effort,
    seeds: int,
    adapter: Path | None,
    tell: Tell = lambda what, share: None,
    staff: Staff | None = None,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Evaluates the found loss beside hand-written ones, and saves its adapter.

    against: names of known losses and methods, each tuned with `effort` first; one that
    breaks down in all trainings is left out, and said so. adapter: the folder for it, or None.
    staff: who trains, None: this process. journal: where what takes long is kept, to be cleared by
    who has stored the record; None for nowhere.
    Returns the record of the evaluation, as plain data.
    """
    contenders = [found_contender(found, bench.settings.lr)]
    phases = (*bench.selecting, TESTING)
    staff = staff or Staff()
    with executor(bench, staff, *phases, journal=journal) as where, bench.sharing.applied():
        for name in against:
            try:
                best = tuned(bench, name, effort, partial(tell, f"tuning {name}"), where)
            except NoWorkers:
                raise  # the loss is not to blame
            except UserError as error:
                bench.say(str(error))
                continue
            contenders.append(replace(best.contender, label=name))
        outcome = evaluate(bench, contenders, seeds, partial(tell, "evaluating"), where)
    first = outcome.rows[0]
    if first.weights is None:
        bench.say(f"there is no adapter of the found loss: {first.reasons[0]}")
    elif adapter is not None:
        try:
            save(
                first.weights, bench.settings.lora, bench.language.model, bench.problem.model,
                adapter,
            )  # fmt: skip
        except OSError as error:  # what was measured is worth keeping all the same
            bench.say(
                f"cannot save the adapter in '{adapter}': {error.strerror or error}; when it can "
                "be, `evoloss evaluate RUN` trains it anew"
            )
    return record(outcome)
