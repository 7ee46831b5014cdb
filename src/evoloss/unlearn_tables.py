"""What unlearning did, as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from evoloss.discovery.comparison import compare
from evoloss.display import formula
from evoloss.tables import new_table, titled
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


def front(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The Pareto front of the search. rows: as of `trade_off.rows`."""
    table = new_table("id", "forgot", "kept", "epochs", "loss")
    for each in rows:
        shares = _number(each["forgotten"]), _number(each["kept"])
        table.add_row(str(each["id"]), *shares, str(each["epochs"]), formula(each["formula"]))
    title = "Pareto front of forgetting, utility and epochs: single adapters of the search"
    return titled(title, table)


def evaluation(record: Mapping[str, Any]) -> RenderableType:
    """Found and hand-written losses on questions that no choice was made by."""
    seeds = max(len(row["values"]) for row in record["rows"])
    head, *lines = cells(record)
    table = new_table(*head)
    for line in lines:
        table.add_row(*line, style="dim" if line[0] in record["models"] else None)
    title = f"Questions that no choice was made by, {counted(seeds, 'seed')} each"
    losses = new_table("loss", "epochs", "rate", "formula")
    for row in record["rows"]:
        rate = "–" if row["lr"] is None else f"{row['lr']:.2g}"
        epochs = "–" if row["epochs"] is None else str(row["epochs"])
        losses.add_row(row["label"], epochs, rate, formula(row["formula"]))
    return Group(titled(title, table), titled("What they are", losses), verdict(record))


def cells(record: Mapping[str, Any]) -> list[list[str]]:
    """The headings, a line for each other model, and one for each loss: means over seeds."""
    names = _columns(record)
    lines = [["", *(COLUMNS.get(name, name) for name in names)]]
    for label, values in record["models"].items():
        lines.append([label, *(_number(values.get(name)) for name in names)])
    for row in record["rows"]:
        done = [each for each in row["values"] if each is not None]
        found = [[each[name] for each in done if name in each] for name in names]
        lines.append([row["label"], _mean_and_spread(found[0]), *map(_mean, found[1:])])
    return lines


def verdict(record: Mapping[str, Any]) -> Text:
    """One honest sentence on the found loss against the best of the others."""
    rows = {row["label"]: _scores(record, row) for row in record["rows"]}
    found = rows.pop("found", None)
    able = {label: scores for label, scores in rows.items() if scores}
    if not found or not able:
        return Text("")
    rival = max(able, key=lambda label: fmean(able[label]))
    name = record["objective"]
    if len(found) != len(able[rival]) or len(found) < 2:
        return Text(f"One seed says little about the difference to {rival}: take more.")
    compared = compare(found, able[rival], higher_is_better=True)
    gain = fmean(found) - fmean(able[rival])
    chance = f"paired t-test over {counted(len(found), 'seed')}"
    chance += "" if compared.p is None else f", p = {compared.p:.2g}"
    where = "above" if gain > 0 else "below"
    sentence = (
        f"The found loss is {abs(gain):.3g} {where} {rival}, the best of the others, in {name} "
        f"({chance})."
    )
    sure = compared.p is not None and compared.p < 0.05
    return Text(sentence, "green" if gain > 0 and sure else "yellow" if not sure else "red")


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


def _scores(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[float]:
    name = record["objective"]
    return [each[name] for each in row["values"] if each is not None and name in each]


def _mean(values: Sequence[float]) -> str:
    return _number(fmean(values)) if values else "failed"


def _mean_and_spread(values: Sequence[float]) -> str:
    return _mean(values) + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
