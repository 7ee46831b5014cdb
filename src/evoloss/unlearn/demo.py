"""The demonstration: fictitious authors, a small model that knows them, and its twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evoloss.unlearn.data.example import Example
from evoloss.unlearn.problem import Problem, load_problem
from evoloss.unlearn.rivals.idk_dpo import ANSWERS
from evoloss.unlearn.small_model import taught

AUTHORS = {"forget": 8, "retain": 32, "holdout": 4}
SETTINGS: dict[str, Any] = {"lr": 2e-3, "epochs": 8}
"""A small model takes a larger learning rate than one of billions of parameters."""

Teach = Callable[[str, float], None]
"""Told which model is being taught, and how probable its answers are by now."""


def demonstration(
    seed: int = 0,
    data: str | None = None,
    data_dir: str | None = None,
    forget_rows: int | None = None,
    retain_rows: int | None = None,
    tick: Teach = lambda which, known: None,
) -> Problem:
    """The problem, with both models; they are taught once and then kept in the cache.

    data: a benchmark instead of the fictitious authors, with so many rows of it, read from
    `data_dir`. Its sets for evaluation alone ask for what a small model has never heard of, and are
    left out.
    """
    given: dict[str, Any] = {"data": data, "data_dir": data_dir, "forget_rows": forget_rows,
                             "retain_rows": retain_rows, "probes": False}  # fmt: skip
    if data is None:
        given["authors"] = {**AUTHORS, "seed": seed}
    problem = load_problem("", **given)
    learnt = problem.data.forget, problem.data.retain
    sets = [each for each in (*learnt, problem.data.holdout) if each is not None]
    texts = [*(text for rows in sets for each in rows for text in _texts(each)), *ANSWERS]
    whole = taught(
        "whole", [each for each in learnt if each is not None], texts, seed,
        lambda known: tick("the model", known),
    )  # fmt: skip
    twin = taught(
        "twin", [each for each in learnt[1:] if each is not None], texts, seed,
        lambda known: tick("its twin that never sees what is to be forgotten", known),
    )  # fmt: skip
    return load_problem(str(whole), retain_model=str(twin), **given)


def _texts(example: Example) -> list[str]:
    """All that the tokenizer has to know."""
    said = (example.prompt, example.answer, example.paraphrased_prompt, example.paraphrased_answer)
    return [text for text in (*said, *example.perturbed) if text is not None]
