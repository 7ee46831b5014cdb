"""What unlearning did, as tables and sentences for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from evoloss.discovery.comparison import Comparison, Verdict, compare
from evoloss.display import formula
from evoloss.tables import new_table, no_comparison, spread, titled
from evoloss.wording import counted

COLUMNS = {
    "balance": "balance",
    "forgetting": "forgot",
    "utility_kept": "kept",
    "trained_kept": "of trained",
    "forget_rouge": "ROUGE f",
    "retain_rouge": "ROUGE r",
    "forget_quality": "quality",
}
"""Shown of all metrics, where there are values; `evoloss show --json` has the others."""
_SHOWN = 7
_WRITTEN = ("llm", "llm refinement")
"""The operators of losses that a language model wrote."""
_DIGITS = 3
_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red"}


def front(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The Pareto front of the search. rows: as of `trade_off.rows`."""
    table = new_table("id", "forgot", "kept", "epochs", "loss")
    for each in rows:
        shares = _number(each["forgotten"]), _number(each["kept"])
        table.add_row(str(each["id"]), *shares, str(each["epochs"]), formula(each["formula"]))
    title = "Pareto front of forgetting, utility and epochs: single adapters of the search"
    return titled(title, table)


def authors(method: str, operators: Mapping[str, int]) -> list[Text]:
    """A line on how much a language model had to do with a search that was to ask one.

    operators: how many losses were made in which way. An endpoint that is down stops no search.
    """
    if method not in ("llm", "mixture"):
        return []
    written = sum(count for way, count in operators.items() if way in _WRITTEN)
    every = counted(sum(operators.values()), "loss", "losses")
    text = f"The language model wrote {written} of {every}; the others were made without it."
    return [Text(text, "" if written else "yellow")]


def evaluation(record: Mapping[str, Any]) -> RenderableType:
    """Found and hand-written losses on questions that no choice was made by."""
    seeds = max(len(row["values"]) for row in record["rows"])
    head, *lines = cells(record)
    table = new_table(*(each.replace(" ", "\n") for each in head))
    table.padding = (0, 1, 0, 0)  # all columns fit into 80: none is cut, a figure least of all
    for line in lines:
        table.add_row(*line, style="dim" if line[0] in record["models"] else None)
    title = f"Questions that no choice was made by, {counted(seeds, 'seed')} each"
    losses = new_table("loss", "epochs", "rate", "formula")
    for row in record["rows"]:
        rate = "–" if row["lr"] is None else f"{row['lr']:.2g}"
        epochs = "–" if row["epochs"] is None else str(row["epochs"])
        losses.add_row(row["label"], epochs, rate, formula(row["formula"]))
    why = (Text(line, "red") for line in failures(record))
    return Group(titled(title, table), *why, titled("What they are", losses), verdict(record))


def cells(record: Mapping[str, Any]) -> list[list[str]]:
    """The headings, a line for each other model, and one for each loss: means over seeds.

    A loss that failed on one of them has no means: those that are left would flatter it.
    """
    names = _columns(record)
    lines = [["", *(COLUMNS.get(name, name) for name in names)]]
    for label, values in record["models"].items():
        lines.append([label, *(_number(values.get(name)) for name in names)])
    for row in record["rows"]:
        own, *others = (scores(row, name) for name in names)
        lines.append([row["label"], spread(own, _DIGITS), *map(_mean, others)])
    return lines


def failures(record: Mapping[str, Any]) -> list[str]:
    """Why trainings failed: a line for each reason, with the losses that it befell."""
    befell: dict[str, list[str]] = {}
    for row in record["rows"]:
        for reason in dict.fromkeys(filter(None, row.get("reasons", ()))):
            befell.setdefault(reason, []).append(row["label"])
    return [f"{', '.join(labels)} failed: {reason}" for reason, labels in befell.items()]


def scores(row: Mapping[str, Any], name: str) -> list[float]:
    """A metric of one loss, (S,), seed by seed; NaN where the training has none."""
    return [math.nan if each is None else each.get(name, math.nan) for each in row["values"]]


def verdict(record: Mapping[str, Any]) -> Text:
    """One honest sentence on the found loss against the best of the others, seed by seed."""
    name = record["objective"]
    others = {row["label"]: scores(row, name) for row in record["rows"]}
    found = others.pop("found", None)
    if not found or not others:
        return Text("")
    rival = max(others, key=lambda label: _standing(others[label]))
    compared = compare(found, others[rival], higher_is_better=True)
    if compared.verdict is Verdict.FAILED:
        sentence = no_comparison(compared, "the found loss", rival)
        return Text(sentence, "red" if compared.failures[0] else "yellow")
    if compared.p is None:
        return Text(f"One seed says little about the difference to {rival}: take more.")
    failed = any(not math.isfinite(score) for each in others.values() for score in each)
    best = f"{rival}, the best of the others{' that never failed' if failed else ''}"
    return Text(_difference(compared, best, name), _STYLES.get(compared.verdict, "yellow"))


def _standing(values: Sequence[float]) -> tuple[int, float]:
    """By which the best is chosen: few failures before a high mean over the rest."""
    able = [each for each in values if math.isfinite(each)]
    return len(able) - len(values), fmean(able) if able else -math.inf


def _difference(compared: Comparison, rival: str, name: str) -> str:
    where = "above" if compared.gain > 0 else "below"
    return (
        f"The found loss is {abs(compared.gain):.3g} {where} {rival}, in {name} "
        f"(paired t-test over {counted(compared.seeds, 'seed')}, p = {compared.p:.2g})."
    )


def samples(record: Mapping[str, Any], label: str = "found") -> RenderableType:
    """Questions to forget with their answers, before and after."""
    lines = Text()
    lines.append("\nAnswers before and after\n", "bold")
    for each in record["samples"]:
        if label not in each["after"]:
            continue
        lines.append(f"{each['question']}\n", "bold")
        lines.append(f"  true    {each['truth']}\n")
        lines.append(f"  before  {each['before']}\n", "dim")
        lines.append(f"  after   {each['after'][label]}\n")
    return lines


def _columns(record: Mapping[str, Any]) -> list[str]:
    known = {name for row in record["rows"] for each in row["values"] if each for name in each}
    own = [record["objective"]]
    return [*own, *(name for name in COLUMNS if name in known and name not in own)][:_SHOWN]


def _mean(values: Sequence[float]) -> str:
    return _number(fmean(values) if all(map(math.isfinite, values)) else None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.{_DIGITS}g}"
