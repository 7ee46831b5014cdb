"""What is known of a run without its task: read from the store, for the command line."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from evoloss.discovery import trade_off
from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.discovery.leaders import Leaders
from evoloss.discovery.loop_settings import ENDLESS
from evoloss.discovery.progress import Progress
from evoloss.discovery.result import Budget, FoundLoss, finals, found_losses
from evoloss.errors import LossError, UserError
from evoloss.lang import zoo
from evoloss.lang.expr import Expr, complexity, inputs_of
from evoloss.lang.parse import parse
from evoloss.lang.text import to_text
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS, Output, Signature
from evoloss.store import Store
from evoloss.store.database import FILE

if TYPE_CHECKING:
    from evoloss.discovery.evaluate import Evaluation

FOLDER = Path("runs")
"""Where runs go unless told otherwise."""


@dataclass(frozen=True)
class Subject:
    """A loss that a command is about. run, output, source: of the run it comes from, if any.

    kind: supervised or unlearning. candidate: its id in the run, None for the run's best.
    """

    label: str
    expression: Expr
    run: Path | None = None
    output: str | None = None
    source: dict[str, Any] | None = None
    kind: str = "supervised"
    candidate: int | None = None


@dataclass(frozen=True)
class Losses:
    """What a run has found so far; best is None while nothing has been scored."""

    best: FoundLoss | None
    front: tuple[FoundLoss, ...]


def new_directory(task: str) -> Path:
    """The first free `runs/<task>-<number>`."""
    name = re.sub(r"[^\w.-]+", "-", task).strip("-.") or "task"
    number = 1
    while (FOLDER / f"{name}-{number}").exists():
        number += 1
    return FOLDER / f"{name}-{number}"


def subject(text: str) -> Subject:
    """The loss that RUN, RUN:ID, the name of a known loss, or an infix text stands for."""
    directory, _, id = text.rpartition(":")
    if os.path.isdir(text):  # which is false for texts too long to be a path, and not an error
        return _of_run(Path(text))
    if id.isdecimal() and os.path.isdir(directory):
        return _of_run(Path(directory), int(id))
    if os.path.isdir(directory):
        raise UserError(
            f"'{id}' is no candidate id of '{directory}': give a number, as in {directory}:0, or "
            f"'{directory}' for its best loss"
        )
    if text in zoo.ZOO:
        kind = "unlearning" if zoo.ZOO[text].kind == "unlearning" else "supervised"
        return Subject(text, zoo.loss(text), kind=kind)
    try:
        if "log_probs_" in text:
            return Subject("given", parse(text, UNLEARNING_TOKENS), kind="unlearning")
        return Subject("given", parse(text))
    except LossError:
        if re.fullmatch(r"[\w./~-]+", text) and re.search(r"[./~]|\w{2}", text):
            raise UserError(
                f"'{text}' is no run directory, no known loss (`evoloss zoo`) and no expression"
            ) from None
        raise


def _of_run(directory: Path, id: int | None = None) -> Subject:
    with Store.open(directory, write=False) as store:
        loss, kind = found(store, id), store.about.get("kind", "supervised")
        label = "found" if id is None else "chosen"
        return Subject(label, loss.expression, directory, loss.output, store.task, kind, id)


def found(store: Store, id: int | None = None) -> FoundLoss:
    """A candidate of a run as its search left it, the best one if no id is given.

    Its error is NaN if it was dropped before it had one. Raises: UserError if there is none.
    """
    history, outcome, output = store.history(), store.outcome, store.about["output"]
    if id is None:
        best = losses(store).best
        if best is None:
            raise UserError(
                f"run '{store.directory}' has no scored loss yet: `evoloss resume "
                f"{store.directory}` first"
            )
        return best
    if id >= len(history):
        raise UserError(
            f"run '{store.directory}' has no candidate {id}: its last one is {len(history) - 1}"
        )
    final = {} if outcome is None else finals(outcome, history, output)
    error = history[id].error
    return final.get(id) or FoundLoss(history[id], math.nan if error is None else error, output)


class Overview:
    """What a run has come to, read without the expressions of all its candidates."""

    SHOWN = 10
    """The best so many candidates."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.history = store.history()
        self.summaries: Sequence[Summary] = store.summaries()
        if len(self.summaries) < len(self.history):  # a run of an earlier version
            self.summaries = [_summary_of(each) for each in self.history]
        self.leaders = Leaders(self.SHOWN)
        for each in self.summaries:
            if each.fate is Fate.SCORED and each.error is not None:
                self.leaders.add(each)

    @property
    def best(self) -> list[Candidate]:
        """The best scored candidates, best first; of equals the simpler."""
        return [self.history[each.id] for each in self.leaders.best]

    @property
    def losses(self) -> Losses:
        """The best and the Pareto front: final ones of a finished run, else as they stand."""
        output, outcome = self.store.about["output"], self.store.outcome
        if outcome is not None:
            return Losses(*found_losses(outcome, self.history, output))
        front = [self.history[each.id] for each in self.leaders.front]
        found = [FoundLoss(each, each.error or 0.0, output) for each in front]
        return Losses(min(found, key=lambda each: each.error, default=None), tuple(found))

    @property
    def budget(self) -> Budget:
        """What the run has cost."""
        return Budget.of(self.summaries, self.store.seconds(), self.store.outcome)


def losses(store: Store) -> Losses:
    """The best and the Pareto front: final ones of a finished run, else as they stand."""
    return Overview(store).losses


def _summary_of(candidate: Candidate) -> Summary:
    """What an overview wants to know of a candidate."""
    return Summary(
        candidate.id, candidate.generation, candidate.fate, candidate.error, candidate.steps,
        b"", complexity(candidate.expression), None, None,
    )  # fmt: skip


def summary(directory: Path) -> dict[str, Any]:
    """One run as plain data; what is wrong with it under `problem` if it cannot be read."""
    try:
        with Store.open(directory, write=False) as store:
            return _summary(store)
    except UserError as error:
        return {"run": str(directory), "problem": str(error)}


def _summary(store: Store) -> dict[str, Any]:
    about, settings = store.about, store.settings
    return {
        "run": str(store.directory),
        "kind": about.get("kind", "supervised"),
        "task": about["task"],
        "network": about["network"],
        "preset": settings["preset"],
        "seed": settings["seed"],
        "generations": store.generations,
        "generations_planned": settings["generations"],
        "metric": about["metric"],
        "higher_is_better": about["higher_is_better"],
        "best_error": store.best_error,
        "state": state(store),
        "process": store.writer,
        "created": about["created"],
    }


def state(store: Store) -> str:
    """Whether the run is finished, running now, or broken off."""
    if store.writer is not None:
        return "running"
    return "broken off" if store.outcome is None else "finished"


def stopped(directory: Path) -> str:
    """What to tell whoever stopped a search: how far it is and how to go on."""
    run = shlex.quote(str(directory))
    try:
        with Store.open(directory, write=False) as store:
            if store.outcome is not None:
                return f"stopped; the search itself is finished, see: evoloss show {run}"
            done = store.generations
            return f"stopped after generation {done}; resume with: evoloss resume {run}"
    except UserError:
        return "stopped before anything was saved"


def runs_in(directory: Path) -> list[Path]:
    """The run directories in a folder, or the folder itself if it is a run; by name."""
    if (directory / FILE).exists():
        return [directory]
    if not directory.is_dir():
        if directory == FOLDER:
            return []
        raise UserError(f"folder '{directory}' does not exist: give the folder of the runs")
    return sorted(each.parent for each in directory.glob(f"*/{FILE}"))


def description(overview: Overview) -> dict[str, Any]:
    """Everything `evoloss show` tells, as plain data."""
    store, found, budget = overview.store, overview.losses, overview.budget
    return {
        **_summary(store),
        "settings": store.settings,
        "best": None if found.best is None else _plain(found.best),
        "front": [_plain(each) for each in found.front],
        **_of_unlearning(overview),
        "fates": dict(Counter(each.fate.value for each in overview.summaries)),
        "candidates": budget.candidates,
        "evaluated": budget.evaluated,
        "steps": budget.steps,
        "seconds": budget.seconds,
        "ended": (store.outcome or {}).get("ended"),
        "evaluations": store.evaluations(),
    }


def _of_unlearning(overview: Overview) -> dict[str, Any]:
    """The front of such a run in what its users weigh up, and how its losses were made."""
    store = overview.store
    if store.about.get("kind") != "unlearning":
        return {}
    from evoloss.unlearn.metrics.legend import legend, measured_names

    names = dict.fromkeys(name for each in store.evaluations() for name in measured_names(each))
    return {
        "trade_off": trade_off.rows(overview.history, store.settings["epochs"]),
        "operators": dict(Counter(each.operator for each in overview.history)),
        "metrics": legend(names),
    }


def _plain(loss: FoundLoss) -> dict[str, Any]:
    return {
        "id": loss.candidate.id,
        "formula": to_text(loss.expression),
        "complexity": loss.complexity,
        "error": loss.error,
    }


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as plain data, for the store; a failed training has the score None."""
    return {
        "task": evaluation.task,
        "metric": evaluation.metric,
        "higher_is_better": evaluation.higher_is_better,
        "steps": evaluation.steps,
        "rows": [
            {
                "label": row.label,
                "formula": to_text(row.expression),
                "scores": [score if math.isfinite(score) else None for score in row.scores],
            }
            for row in evaluation.rows
        ],
    }


def signature(loss: Expr) -> Signature:
    """The inputs of an unlearning loss: of tokens if it uses a mask, else of sequences."""
    masks = inputs_of(loss) & {"mask_forget", "mask_retain"}
    return UNLEARNING_TOKENS if masks else UNLEARNING


def transform(given: str | None, of: Subject) -> Output:
    """The output transform to export a loss with: the given one, else the run's, else identity."""
    name = given or of.output or "identity"
    for known in get_args(Output):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise UserError(f"unknown transform '{name}': choose {', '.join(get_args(Output))}")


def progress(store: Store) -> Progress:
    """Where a stored search stands, as its own display would show it."""
    overview, settings = Overview(store), store.settings
    summaries, best = overview.summaries, next(iter(overview.best), None)
    sign = -1.0 if store.about["higher_is_better"] else 1.0
    seconds = sum(store.seconds().values())
    left = settings["generations"] - store.generations
    return Progress(
        generation=store.generations,
        generations=settings["generations"],
        stage="saved",
        best=best,
        best_shown=None if best is None or best.error is None else sign * best.error,
        fates=Counter(each.fate for each in summaries),
        candidates=len(summaries),
        per_second=len(summaries) / seconds if seconds else 0.0,
        seconds=seconds,
        seconds_left=seconds / store.generations * left
        if store.generations and settings["generations"] < ENDLESS
        else None,
    )
