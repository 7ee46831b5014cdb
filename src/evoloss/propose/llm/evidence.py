"""What a search knows of a loss, as text for a prompt: its source, its score, what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evoloss.lang.export.torch_source import function_texts, wrapped, written
from evoloss.lang.expr import Expr
from evoloss.lang.parse import parse
from evoloss.lang.reader import DEFAULT_EPOCHS
from evoloss.lang.text import to_text
from evoloss.lang.types import Signature
from evoloss.propose.llm.stream import short
from evoloss.propose.proposer import Goal, Individual
from evoloss.wording import counted

MAX_SOURCE, MAX_LINE, MAX_METRICS, MAX_POINTS = 4_000, 300, 24, 8
"""Limits: characters of a source and of a formula, metrics, and points of a curve."""
_DIGITS = 6
_NUMBER = "torch.tensor({})"


def source(individual: Individual, signature: Signature, most_epochs: int | None) -> str:
    """The loss as a Python function that the reader reads back; a formula if that is too long."""
    text = to_text(individual.expression, _DIGITS)
    expression = parse(text, signature)
    epochs = individual.epochs or DEFAULT_EPOCHS
    docstring = [] if most_epochs is None else [f'    """epochs: {epochs}"""']
    helpers = [
        each.replace(": Tensor", "").replace(" -> Tensor", "").replace("nn.functional", "F")
        for each in function_texts(expression)
    ]
    lines = [
        *helpers,
        f"def loss_fn_1({', '.join(signature.inputs)}):",
        *docstring,
        f"    return (\n        {wrapped(written(expression, _NUMBER), 4)}\n    )",
    ]
    found = "\n".join(lines)
    return found if len(found) <= MAX_SOURCE else f"# {short(text, MAX_SOURCE)}"


def is_scored(individual: Individual) -> bool:
    """Whether it has an error that counts, be it one that only says where it stands."""
    return individual.error is not None and math.isfinite(individual.error)


def stopped_early(individual: Individual) -> bool:
    """Whether it was raced out: its error was made up for selection, and measures nothing."""
    return bool(individual.details.get("at_rung"))


def is_finished(individual: Individual) -> bool:
    """Whether it was trained to the end and scored."""
    return is_scored(individual) and not stopped_early(individual)


def score(individual: Individual, goal: Goal) -> str:
    """The objective, and the epochs where there are such."""
    if individual.error is None or not is_scored(individual):
        return "no score"
    epochs = f", {counted(individual.epochs, 'epoch')}" if individual.epochs else ""
    if stopped_early(individual):
        return f"stopped early{epochs}"
    return f"{goal.name} {0.0 - individual.error:.4g}{epochs}"


def line_of(individual: Individual, goal: Goal) -> str:
    """The formula and the score in one line."""
    return f"{formula(individual.expression)} ({score(individual, goal)})"


def failure(individual: Individual, goal: Goal) -> str:
    """The formula and why it came to nothing, with what was measured if it was stopped early."""
    at_rung = individual.details.get("at_rung")
    parts = f" ({_value(at_rung)})" if at_rung else ""
    return f"{line_of(individual, goal)}: {short(individual.reason) or 'no score'}{parts}"


def formula(expression: Expr) -> str:
    """The infix form in one short line."""
    return short(to_text(expression, 4), MAX_LINE)


def measured(individual: Individual, goal: Goal) -> str:
    """The metrics and the learning curve; empty where neither was told."""
    details = individual.details
    if stopped_early(individual):
        metrics = _metrics(details["at_rung"], goal)
        why = short(individual.reason) or "others were better"
        return "\n".join([f"It was stopped early: {why}. Its measurements then:", *metrics])
    parts = []
    if metrics := _metrics(details.get("metrics"), goal):
        parts.append("\n".join(["Its measurements, the most important first:", *metrics]))
    if curve := _curve(details.get("curve")):
        parts.append(f"Its learning curve, {goal.curve}, by share of its training:\n{curve}")
    return "\n\n".join(parts)


def _metrics(found: Any, goal: Goal) -> list[str]:
    if not isinstance(found, Mapping):
        return []
    told = list(goal.meanings(found).items())[:MAX_METRICS]
    return [
        f"- {short(name, 60)}: {_value(found[name])}" + (f" ({short(meaning)})" if meaning else "")
        for name, meaning in told
    ]


def _curve(found: Any) -> str:
    """Points of a curve, evenly thinned, the first and the last among them; there must be both."""
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ""
    points = [p for p in found if isinstance(p, Sequence) and len(p) == 2]
    points = [p for p in points if isinstance(p[0], (int, float)) and p[0] > 0]
    if len(points) < 2:
        return ""
    if len(points) > MAX_POINTS:
        gap = (len(points) - 1) / (MAX_POINTS - 1)
        points = [points[round(index * gap)] for index in range(MAX_POINTS)]
    return ", ".join(f"{step / points[-1][0]:.0%}: {_value(value)}" for step, value in points)


def _value(value: Any) -> str:
    """A measured value, whatever it is, in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return short(", ".join(f"{name} {_value(each)}" for name, each in value.items()), 120)
    return short(str(value), 60)
