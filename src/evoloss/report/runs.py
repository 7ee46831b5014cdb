"""What a report is about: stored runs, those that differ only in their seed taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evoloss.discovery.candidate import Fate
from evoloss.discovery.result import Budget, FoundLoss
from evoloss.errors import UserError
from evoloss.lang.expr import Expr
from evoloss.lang.parse import parse
from evoloss.lang.types import SUPERVISED, UNLEARNING_TOKENS, Output
from evoloss.runs import Overview
from evoloss.store import Store
from evoloss.store.entry import Entry
from evoloss.tables import Measure

KIND = "unlearning"
"""What the description of a run has under `kind` if its losses make a language model forget."""
_OPERATORS = (
    "usual loss", "known loss", "initial", "elite", "reproduction", "crossover", "mutation",
    "varied", "refinement",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything of a stored run that a report shows. best: None while nothing was scored."""

    directory: Path
    source: dict[str, Any] | None
    settings: dict[str, Any]
    about: dict[str, Any]
    candidates: tuple[Entry, ...]
    generations: int
    best: FoundLoss | None
    front: tuple[FoundLoss, ...]
    budget: Budget
    finished: bool
    evaluations: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        """`supervised` or `unlearning`."""
        return str(self.about.get("kind", "supervised"))

    @property
    def measure(self) -> Measure:
        return Measure(self.about["metric"], self.about["higher_is_better"])

    @property
    def output(self) -> Output:
        return self.about["output"]  # type: ignore[no-any-return]

    @property
    def usual(self) -> Expr:
        signature = UNLEARNING_TOKENS if self.kind == KIND else SUPERVISED
        return parse(self.about["usual_loss"], signature)

    def shown(self, error: float) -> float:
        """The metric's own value for an error."""
        return -error if self.about["higher_is_better"] else error

    def original(self, candidate: Entry) -> Entry:
        """The candidate whose trainings gave this one its result."""
        while candidate.same_as is not None:
            candidate = self.candidates[candidate.same_as]
        return candidate

    def full_score(self, candidate: Entry) -> float | None:
        """The error at the full number of training steps, own or taken over."""
        found = self.original(candidate)
        return found.error if found.fate is Fate.SCORED else None


@dataclass(frozen=True)
class Group:
    """Runs of one method: equal settings, different seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def best(self) -> Run | None:
        """The run with the lowest validation error."""
        return best_of(self.runs)


def labelled(groups: Sequence[Group]) -> list[tuple[str, Run]]:
    """The best run of each method, by the method's name, or as 'found' if there is but one."""
    name = "found" if len(groups) == 1 else None
    return [(name or each.label, each.best) for each in groups if each.best is not None]


def bare(operator: str) -> str:
    """An operator without the name of the proposer before it, which a mixture puts there."""
    return next((each for each in _OPERATORS if operator.endswith(f" {each}")), operator)


def ranked(candidates: Sequence[Entry]) -> list[Entry]:
    """The scored candidates, best first; of equals the simpler."""
    scored = [each for each in candidates if each.fate is Fate.SCORED and each.error is not None]
    return sorted(scored, key=lambda each: (each.error, each.complexity, each.id))


def best_of(runs: Sequence[Run]) -> Run | None:
    """The run whose loss has the lowest validation error; None if none has a scored loss."""
    able = [run for run in runs if run.best is not None]
    return min(able, key=lambda run: run.best.error if run.best else 0.0, default=None)


def subject(runs: Sequence[Run]) -> Run | None:
    """The run whose loss is looked at closely: the best one that searched.

    A fixed loss, which has but one generation, is what others are compared with.
    """
    searched = [run for run in runs if run.generations > 1]
    return best_of(searched) or best_of(runs)


def read(directories: Sequence[Path]) -> tuple[Run, ...]:
    """The runs. Raises UserError if there is none, one is unreadable, or their tasks differ."""
    if not directories:
        raise UserError("a report needs at least one run: name its directory")
    found = tuple(_read(directory) for directory in dict.fromkeys(directories))
    first = found[0]
    for other in found[1:]:
        if other.kind != first.kind:
            raise UserError(
                f"run '{other.directory}' is {_what(other)}, '{first.directory}' is "
                f"{_what(first)}: make a report for each"
            )
        for name in ("task", "network", "metric"):
            if other.about[name] != first.about[name]:
                raise UserError(
                    f"run '{other.directory}' has {name} '{other.about[name]}', "
                    f"'{first.directory}' has '{first.about[name]}': make a report for each"
                )
    return found


def _what(run: Run) -> str:
    return "an unlearning run" if run.kind == KIND else "a search on labelled data"


def _read(directory: Path) -> Run:
    with Store.open(directory, write=False) as store:
        overview = Overview(store)
        found = overview.losses
        return Run(
            directory=directory,
            source=store.task,
            settings=store.settings,
            about=store.about,
            candidates=store.entries(),
            generations=store.generations,
            best=found.best,
            front=found.front,
            budget=overview.budget,
            finished=store.outcome is not None,
            evaluations=store.evaluations(),
        )


def grouped(runs: Sequence[Run]) -> tuple[Group, ...]:
    """The runs by their settings without the seed, in the order of their first ones."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(_without_seed(run).items())), []).append(run)
    firsts = [_without_seed(members[0]) for members in groups.values()]
    labels = [_label(own, firsts) for own in firsts]
    return tuple(
        Group(label, tuple(members)) for label, members in zip(labels, groups.values(), strict=True)
    )


def _without_seed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.settings.items() if name != "seed"}


def _label(own: dict[str, Any], all_of_them: Sequence[dict[str, Any]]) -> str:
    """The method, with the settings in which others of the same method differ."""
    rivals = [each for each in all_of_them if each["method"] == own["method"]]
    different = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in own.items()
        if any(each.get(name) != value for each in rivals)
    ]
    return ", ".join([own["method"], *different])
