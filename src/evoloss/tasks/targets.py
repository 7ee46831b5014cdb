"""Tells regression from classification, and refuses targets that nothing can be learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.compose import Kind
from evoloss.tasks.splits import Array

MOST_CLASSES = 20
"""Whole numbers with at most so many distinct values are taken for classes by default."""


@dataclass(frozen=True)
class Target:
    """y: (N, C) float for regression, (N,) class numbers for classification."""

    y: Array
    kind: Kind
    class_names: tuple[str, ...] = ()


def is_numeric(values: Array) -> bool:
    """Whether an array holds numbers (not truth values, which are classes)."""
    return values.dtype.kind in "iuf"


def usual_kind(values: Array) -> Kind:
    """Classification for text, truth values and few distinct whole numbers, else regression."""
    if not is_numeric(values):
        return "classification"
    whole = bool((values == np.round(values)).all())
    few = whole and values.ndim == 1 and len(np.unique(values)) <= MOST_CLASSES
    return "classification" if few else "regression"


def read_target(values: Array, kind: Kind, what: str) -> Target:
    """values: (N,) numbers or text, or (N, C) numbers, all present and finite.

    Raises: UserError for text in regression, a constant target, or a single class.
    """
    if kind == "classification":
        return _classes(values, what)
    if not (is_numeric(values) or values.dtype == bool):
        example = next(value for value in values.ravel() if not _is_number(value))
        raise UserError(
            f"{what} is not numeric (such as '{example}'): use --kind classification, "
            "or choose a numeric target"
        )
    y = values.reshape(len(values), -1).astype(np.float64)
    if (y == y[:1]).all():
        raise UserError(
            f"{what} is constant ({y[0, 0]:g} in all {len(y)} rows): there is nothing to learn, "
            "choose another target"
        )
    return Target(y, "regression")


def _classes(values: Array, what: str) -> Target:
    if values.ndim == 2:
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise UserError(
                f"{what} has {values.shape[1]} columns that are not one-hot: "
                "give class numbers (N,), or use --kind regression"
            )
        values = values.argmax(1)
    if is_numeric(values) and (values == np.round(values)).all():
        values = values.astype(np.int64)
    elif values.dtype == object:
        values = values.astype(str)
    distinct, numbers = np.unique(values, return_inverse=True)
    if len(distinct) < 2:
        raise UserError(
            f"{what} has one class only ('{distinct[0]}' in all {len(values)} rows): "
            "classification needs two or more"
        )
    return Target(numbers, "classification", tuple(str(value) for value in distinct))


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True
