"""Cuts a data set into disjoint training, validation and test parts, equal rows on one side.

Rows that are equal in input and target form a group, and a group is never divided: otherwise a
row of the test part could have been seen in training. The cut depends on the split seed only, not
on the seed of a search, so that all searches on a task see the same parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evoloss.errors import UserError
from evoloss.tasks.task import Data, Splits
from evoloss.wording import counted

Array = NDArray[Any]
FOLDS = 5  # 60 % training, 20 % validation, 20 % test
LEAST_ROWS = 2 * FOLDS  # two rows in every part, for a score to mean anything
VALIDATION_ROWS = 10_000


@dataclass(frozen=True)
class Rows:
    """Rows of a data set. x: (N, ...); y: (N, C) float, or (N,) int class numbers.

    class_names: by class number, for messages; the numbers themselves if empty.
    """

    x: Array
    y: Array
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Array) -> Rows:
        """The rows at the given positions."""
        return Rows(self.x[index], self.y[index], self.class_names)

    @property
    def classes(self) -> Array | None:
        """(N,) class numbers, or None for regression."""
        return self.y if self.y.ndim == 1 else None


@dataclass(frozen=True)
class Parts:
    """The three parts of a data set before they become tensors."""

    train: Rows
    validation: Rows
    test: Rows


def row_keys(*arrays: Array) -> list[bytes]:
    """One key per row of the arrays together: rows with equal content have equal keys."""
    flat = [np.ascontiguousarray(array + 0) for array in arrays]
    return [
        hashlib.blake2b(b"".join(row.tobytes() for row in rows), digest_size=16).digest()
        for rows in zip(*flat, strict=True)
    ]


def three_parts(rows: Rows, seed: int, what: str, keys: Sequence[object] | None = None) -> Parts:
    """60 % training, 20 % validation, 20 % test, in proportion of the classes if there are any.

    keys: one per row; rows with equal keys stay together. By default the rows' content.
    what: how to name the data set in an error.
    Raises: UserError if a class (or the set) has too few distinct rows to be in every part.
    """
    test, validation, *train = folds(rows, FOLDS, seed, what, keys)
    return Parts(rows.take(np.sort(np.concatenate(train))), rows.take(validation), rows.take(test))


def hold_out_validation(rows: Rows, seed: int, what: str) -> tuple[Rows, Rows]:
    """Given training rows without, and with only, those for validation: a fifth, or about 10,000.

    Raises: UserError as `three_parts` does.
    """
    count = max(FOLDS, round(len(rows) / VALIDATION_ROWS))
    validation, *train = folds(rows, count, seed, what)
    return rows.take(np.sort(np.concatenate(train))), rows.take(validation)


def completed(given: Sequence[Rows], seed: int, what: str, training: str) -> Parts:
    """Three parts of what a user gives: everything, training and test, or all three.

    what, training: how to name all of it, and the training data, in an error.
    Raises: UserError as `three_parts` and `check_given` do.
    """
    if len(given) == 1:
        return three_parts(given[0], seed, what)
    if len(given) == 2:
        train, validation = hold_out_validation(given[0], seed, training)
        given = [train, validation, given[1]]
    parts = Parts(*given)
    check_given(parts, what)
    return parts


def folds(
    rows: Rows, count: int, seed: int, what: str, keys: Sequence[object] | None = None
) -> list[Array]:
    """Sorted positions of `count` disjoint random parts of about equal size, in class proportion.

    Raises: UserError if there are fewer than `count` distinct rows, in all or in a class.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    groups = _group_numbers(keys if keys is not None else row_keys(rows.x, rows.y))
    representatives = _representatives(groups, rows.classes)
    _check_enough(rows, representatives, count, what)
    if rows.classes is None:
        parts = KFold(count, shuffle=True, random_state=seed).split(representatives)
    else:
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
        parts = splitter.split(representatives, rows.classes[representatives])
    return [np.flatnonzero(np.isin(groups, part)) for _, part in parts]


def _group_numbers(keys: Sequence[object]) -> Array:
    """(N,) int: equal keys get equal numbers, counted from 0 in order of appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _representatives(groups: Array, classes: Array | None) -> Array:
    """One row per group, by group number: of the group's rarest class, so that none is lost."""
    order = np.arange(len(groups))
    if classes is not None:
        order = np.argsort(np.bincount(classes)[classes], kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(order[first])


def _check_enough(rows: Rows, representatives: Array, count: int, what: str) -> None:
    if len(representatives) < LEAST_ROWS:
        distinct = "" if len(representatives) == len(rows) else "distinct "
        raise UserError(
            f"{what} has {counted(len(representatives), f'{distinct}row')}: a task needs at least "
            f"{LEAST_ROWS}"
        )
    if rows.classes is None:
        return
    counts = np.bincount(rows.classes[representatives], minlength=len(rows.class_names))
    for number, found in enumerate(counts):
        if found < count:
            name = rows.class_names[number] if rows.class_names else number
            raise UserError(
                f"class '{name}' of {what} has {counted(found, 'distinct row')}: every class needs "
                f"at least {count}, to be in training, validation and test data"
            )


def shared_rows(one: Rows, other: Rows) -> Array:
    """(N,) bool: which rows of `one` occur in `other`, equal in input and target."""
    known = set(row_keys(other.x, other.y))
    return np.array([key in known for key in row_keys(one.x, one.y)], dtype=bool)


def check_given(parts: Parts, what: str) -> None:
    """Holds parts that a user cut to what our own fulfil: none empty, no row in two of them.

    Raises: UserError, for a row that occurs twice with its input and target both equal.
    """
    named = {"training": parts.train, "validation": parts.validation, "test": parts.test}
    for name, rows in named.items():
        if len(rows) < 2:
            raise UserError(
                f"{what} has {counted(len(rows), f'{name} row')}: every part needs at least 2"
            )
    keys = {name: row_keys(rows.x, rows.y) for name, rows in named.items()}
    for first, second in combinations(keys, 2):
        known = set(keys[second])
        count = sum(key in known for key in keys[first])
        if count:
            raise UserError(
                f"{what}: {counted(count, f'{first} row occurs', f'{first} rows occur')} in the "
                f"{second} data too: remove what is there twice, "
                "a test on rows that were seen in training proves nothing"
            )


def one_hot(classes: Array, count: int) -> Array:
    """(N, count) float32 of (N,) class numbers."""
    return np.eye(count, dtype=np.float32)[classes]


def as_splits(parts: Parts, class_count: int | None = None) -> Splits:
    """Tensors as networks and losses take them: float32 (int64 for character numbers), one-hot."""

    def data(rows: Rows) -> Data:
        y = rows.y if class_count is None else one_hot(rows.y, class_count)
        exact = np.issubdtype(rows.x.dtype, np.integer)
        x = rows.x.astype(np.int64 if exact else np.float32)
        return Data(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))

    return Splits(data(parts.train), data(parts.validation), data(parts.test))


def standardise(train: Array, *others: Array, axis: tuple[int, ...] | int = 0) -> list[Array]:
    """Arrays scaled to mean 0 and standard deviation 1 by the statistics of the first alone.

    What is constant in the first becomes 0 there.
    """
    mean = train.mean(axis, keepdims=True, dtype=np.float64)
    deviation = train.std(axis, keepdims=True, dtype=np.float64)
    # The rounding of a constant column's mean must not be blown up to noise of size one.
    constant = deviation <= 1e-12 * np.abs(mean)
    scale = np.where(constant, 1.0, deviation)
    return [((array - mean) / scale).astype(np.float32) for array in (train, *others)]
