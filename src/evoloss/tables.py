"""What a search found, cost and is worth, as tables and sentences for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evoloss.discovery.candidate import Candidate
from evoloss.discovery.comparison import Comparison, Verdict, compare
from evoloss.discovery.result import Budget, FoundLoss
from evoloss.display import clock, formula, loss_text, of_planned
from evoloss.lang.parse import parse_expression
from evoloss.lang.text import to_text
from evoloss.wording import counted

_LONGEST = 100
"""Characters of a loss in the table of candidates."""

_LEAST = (11, 8, 6, None, None, None, 7, 8)
"""The narrowest that a list of runs may have its columns; together they fit into 80."""

_READING = "loss of one output, y the target and f the prediction"
_READING_UNLEARNING = "loss of a batch, of log-probabilities of answers to forget and to retain"


class Measure(NamedTuple):
    """The metric as a reader sees it: errors inside, its own values outside."""

    name: str
    higher_is_better: bool

    def shown(self, error: float | None) -> str:
        """The metric's own value for an error, to four digits."""
        if error is None:
            return "–"
        return f"{-error if self.higher_is_better else error:.4g}"


def found_loss(found: FoundLoss, measure: Measure) -> RenderableType:
    """The loss itself, large, with what is known of it from the search."""
    return Group(
        Text(_READING if found.output else _READING_UNLEARNING, style="dim"),
        Text.assemble("  ", formula(str(found)), style="bold"),
        Text(
            f"complexity {found.complexity}, validation {measure.name} {measure.shown(found.error)}"
        ),
    )


def front(losses: Sequence[FoundLoss], measure: Measure) -> RenderableType:
    """The Pareto front: no loss found is both simpler and better than one of these."""
    table = new_table("id", "complexity", f"validation {measure.name}", "loss")
    for each in losses:
        table.add_row(
            str(each.candidate.id), str(each.complexity), measure.shown(each.error),
            formula(str(each)),
        )  # fmt: skip
    return titled("Pareto front", table)


def candidates(best: Sequence[Candidate], measure: Measure) -> RenderableType:
    """Candidates with where they came from; long losses are cut, `--json` has all of them."""
    table = new_table("id", "gen.", measure.name, "made by", "from", "loss")
    for each in best:
        table.add_row(
            str(each.id),
            str(each.generation + 1),
            measure.shown(each.error),
            each.operator,
            ", ".join(map(str, each.parents)) or "–",
            formula(_cut(loss_text(each))),
        )
    return titled(f"Best {counted(len(best), 'candidate')}", table)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def comparison(record: Mapping[str, Any]) -> RenderableType:
    """The table of an evaluation: the loss in question, the usual one, and the verdict.

    record: as `evoloss.runs.evaluation_record` makes it.
    """
    measure = Measure(record["metric"], record["higher_is_better"])
    mine, usual = record["rows"]
    table = new_table("loss", f"test {measure.name}", "±", "formula")
    for row in (mine, usual):
        mean, spread = mean_and_spread(_scores(row))
        text = to_text(parse_expression(row["formula"]), digits=4)
        table.add_row(row["label"], mean, spread, formula(text))
    compared = compare(_scores(mine), _scores(usual), higher_is_better=measure.higher_is_better)
    styles = {Verdict.BETTER: "green", Verdict.NO_DIFFERENCE: "yellow"}
    sentence = verdict(compared, measure, mine["label"])
    title = (
        f"Test data of {record['task']}, {counted(compared.seeds, 'seed')}, "
        f"{counted(record['steps'], 'training step')} each"
    )
    return Group(titled(title, table), Text(sentence, styles.get(compared.verdict, "red")))


def _scores(row: Mapping[str, Any]) -> list[float]:
    return [math.nan if score is None else score for score in row["scores"]]


def mean_and_spread(scores: Sequence[float], digits: int = 4) -> tuple[str, str]:
    """Mean and standard deviation of the scores; says how many trainings had none."""
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) < len(scores):
        return f"{len(scores) - len(finite)} of {len(scores)} failed", "–"
    return f"{fmean(finite):.{digits}g}", f"{stdev(finite):.2g}" if len(finite) > 1 else "–"


def spread(scores: Sequence[float], digits: int = 4) -> str:
    """mean ± standard deviation, or how many trainings had no score."""
    mean, deviation = mean_and_spread(scores, digits)
    return mean if deviation == "–" else f"{mean} ± {deviation}"


def verdict(compared: Comparison, measure: Measure, label: str) -> str:
    """One honest sentence on a loss against the usual one."""
    seeds = counted(compared.seeds, "seed")
    if compared.verdict is Verdict.FAILED:
        return no_comparison(compared, f"the {label} loss", "the usual one")
    lower = (compared.gain > 0) != measure.higher_is_better
    change = (
        f"its {measure.name} is {'lower' if lower else 'higher'} by {abs(compared.gain):.3g} "
        "on average"
    )
    if compared.p is None:
        return f"One seed says nothing about the difference ({change}): take --seeds 5 or more."
    test = f"paired t-test over {seeds}, p = {compared.p:.2g}"
    if compared.gain == 0:
        return f"No difference: both losses have the same mean {measure.name} over {seeds}."
    if compared.verdict is Verdict.NO_DIFFERENCE:
        return (
            f"No difference shown on test data: the {label} loss looks "
            f"{'better' if compared.gain > 0 else 'worse'} ({change}), "
            f"but not beyond chance ({test})."
        )
    comparative = "better" if compared.verdict is Verdict.BETTER else "WORSE"
    return f"The {label} loss is {comparative} than the usual one on test data: {change} ({test})."


def no_comparison(compared: Comparison, mine: str, other: str) -> str:
    """Why two losses cannot be held against each other seed by seed."""
    failed = compared.failures
    return (
        f"No comparison: of {counted(compared.seeds, 'seed')}, training failed on {failed[0]} "
        f"with {mine} and on {failed[1]} with {other}."
    )


def budget(spent: Budget) -> RenderableType:
    """What the search cost."""
    stages = " · ".join(
        f"{stage} {seconds:.1f} s"
        for stage, seconds in sorted(spent.seconds.items(), key=lambda item: -item[1])
    )
    return Text(
        f"spent: {counted(spent.candidates, 'candidate')}, {spent.evaluated:,} of them trained, "
        f"{counted(spent.steps, 'gradient step')}, {clock(sum(spent.seconds.values()))}"
        + (f" ({stages})" if stages else "")
    )


def run(description: Mapping[str, Any]) -> RenderableType:
    """What run it is, how far it is, and what became of its candidates."""
    counts = " · ".join(f"{count} {fate}" for fate, count in description["fates"].items())
    return Text(
        f"run {description['run']}: {description['state']}, "
        f"generation {of_planned(description['generations'], description['generations_planned'])}\n"
        f"task {description['task']}, network {description['network']}, "
        f"preset {description['preset']}, seed {description['seed']}, "
        f"created {description['created']}\n"
        f"{counted(description['candidates'], 'candidate')}" + (f": {counts}" if counts else "")
    )


def runs(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """One line a run."""
    table = new_table("run", "task", "network", "preset", "seed", "done", "best", "state")
    for column, least in zip(table.columns, _LEAST, strict=False):
        column.min_width = least
    for each in summaries:
        if "problem" in each:
            table.add_row(each["run"], *["–"] * 6, Text(each["problem"], style="red"))
            continue
        measure = Measure(each["metric"], each["higher_is_better"])
        best = "–" if each["best_error"] is None else (
            f"{measure.name} {measure.shown(each['best_error'])}"
        )  # fmt: skip
        table.add_row(
            each["run"],
            each["task"],
            each["network"],
            each["preset"],
            str(each["seed"]),
            of_planned(each["generations"], each["generations_planned"]),
            best,
            each["state"],
        )
    return table


def new_table(*columns: str) -> Table:
    """A plain table in which formulas and paths are wrapped and nothing else is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        wide = column in ("loss", "formula", "run", "task", "network", "best", "state")
        table.add_column(Text(column), overflow="fold", no_wrap=not wide)
    return table


def titled(title: str, table: Table) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), table)
