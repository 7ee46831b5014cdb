"""Divides every set into a part that the search selects by and one that only the report sees.

Rows that ask the same, in the question or in its paraphrase, form a group, and a group is never
divided; paraphrased and perturbed answers stand in the row of their question and go with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet, Record, UnlearningData
from evoloss.wording import counted

TEST_SHARE = 0.5

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True)
class Divided:
    """The two parts of the data: all of a search may look at the one, nothing at the other."""

    search: UnlearningData
    test: UnlearningData


def divide(data: UnlearningData, seed: int, test_share: float = TEST_SHARE) -> Divided:
    """Search and test part of every set. Of the retain set, which is also trained on, half the
    share is for the test.

    Each set draws from a generator of its own, of the seed and the set's role, so that its division
    does not depend on which other sets there are.
    Raises: UserError if a set has a single question, or the share leaves a part empty.
    """

    def both(
        role: str, rows: DataSet[R], share: float = test_share
    ) -> tuple[DataSet[R], DataSet[R]]:
        rng = np.random.default_rng([seed, zlib.crc32(role.encode())])
        return divide_set(rows, rng, share)

    forget = both("forget", data.forget)
    retain = (None, None) if data.retain is None else both("retain", data.retain, test_share / 2)
    holdout = (None, None) if data.holdout is None else both("holdout", data.holdout)
    probes = {name: both(f"probe {name}", rows) for name, rows in data.probes.items()}
    choices = {name: both(f"choice {name}", rows) for name, rows in data.choices.items()}

    def part(index: int) -> UnlearningData:
        return UnlearningData(
            data.name,
            forget[index],
            retain[index],
            holdout[index],
            {name: pair[index] for name, pair in probes.items()},
            {name: pair[index] for name, pair in choices.items()},
        )

    return Divided(part(0), part(1))


def divide_set(
    rows: DataSet[R], rng: np.random.Generator, test_share: float = TEST_SHARE
) -> tuple[DataSet[R], DataSet[R]]:
    """Search and test part of one set, both in the order of the set.

    Raises: UserError as `divide` does.
    """
    if not 0.0 < test_share < 1.0:
        raise UserError(f"the test share is {test_share}: choose one between 0 and 1")
    groups = _groups([row.keys for row in rows])
    count = max(groups) + 1 if groups else 0
    if count < 2:
        raise UserError(
            f"'{rows.name}' asks {counted(count, 'different question')}: to keep some for the test "
            "it takes 2"
        )
    sizes = np.bincount(groups)
    order = rng.permutation(count)
    # Rows in the test part if it took the first k groups of the order, k from 1 to all but one.
    filled = np.cumsum(sizes[order])[:-1]
    taken = int(np.argmin(np.abs(filled - test_share * len(rows)))) + 1
    chosen = set(order[:taken].tolist())
    search, test = (
        tuple(row for row, group in zip(rows, groups, strict=True) if (group in chosen) is wanted)
        for wanted in (False, True)
    )
    return replace(rows, rows=search), replace(rows, rows=test)


def evenly(values: Sequence[T], most: int | None) -> tuple[T, ...]:
    """At most so many of them, evenly spaced."""
    taken = len(values) if most is None else min(most, len(values))
    return tuple(values[number * len(values) // taken] for number in range(taken))


def _groups(keys: list[tuple[str, ...]]) -> list[int]:
    """Numbers from 0: rows that share a key, be it through others, have the same."""
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    for row, own in enumerate(keys):
        for key in own:
            parent[root(row)] = root(first.setdefault(key, row))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(keys))]
