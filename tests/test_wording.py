"""Counts in messages: the noun and the verb agree with the number."""

import math

import numpy as np
import pytest

from evoloss.wording import counted


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 rows"), (1, "1 row"), (2, "2 rows"), (-1, "-1 rows"), (1234, "1,234 rows"),
        (np.int64(1), "1 row"), (0.5, "0.5 rows"), (1.0, "1 row"), (1e5, "100000 rows"),
        (math.nan, "nan rows"),
    ],
)  # fmt: skip
def test_the_noun_agrees_with_the_number(count, expected):
    assert counted(count, "row") == expected


def test_a_plural_of_its_own_and_a_verb():
    assert counted(1, "loss", "losses") == "1 loss"
    assert counted(2, "loss", "losses") == "2 losses"
    assert counted(1, "row is left out", "rows are left out") == "1 row is left out"
    assert counted(3, "row is left out", "rows are left out") == "3 rows are left out"
