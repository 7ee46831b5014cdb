"""Splits: disjoint, in proportion, equal rows together; standardisation by training data only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.errors import UserError
from evoloss.tasks.splits import (
    Parts,
    Rows,
    check_given,
    folds,
    hold_out_validation,
    row_keys,
    shared_rows,
    standardise,
    three_parts,
)


def contents(rows):
    """Rows as a set of plain tuples: equality without any hashing of ours."""
    pairs = zip(rows.x.reshape(len(rows), -1), rows.y.reshape(len(rows), -1), strict=True)
    return {(*x.tolist(), *y.tolist()) for x, y in pairs}


@given(st.integers(10, 60), st.integers(0, 1000))
def test_every_row_is_in_one_part_and_equal_rows_in_the_same(count, seed):
    draws = np.random.default_rng(seed)
    x = np.concatenate([np.arange(10), draws.integers(12, size=count)])[:, None].astype(float)
    parts = three_parts(Rows(x, 2 * x), seed, "data")
    sets = [contents(rows) for rows in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(np.unique(x))
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(x)


def test_a_split_is_60_20_20_in_proportion_of_the_classes():
    y = np.repeat([0, 1, 2], [100, 50, 10])
    parts = three_parts(Rows(np.arange(160.0)[:, None], y), 0, "data")
    assert np.bincount(parts.train.y).tolist() == [60, 30, 6]
    assert np.bincount(parts.validation.y).tolist() == [20, 10, 2]
    assert np.bincount(parts.test.y).tolist() == [20, 10, 2]


def test_the_split_is_the_seeds():
    rows = Rows(np.arange(50.0)[:, None], np.arange(50.0)[:, None])
    first, again, other = (three_parts(rows, seed, "data").test.x for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_with_the_same_key_stay_together_and_no_rare_class_is_lost():
    keys = [f"name {number // 2}" for number in range(60)]
    y = np.array([number % 2 for number in range(60)])  # every name stands under both classes
    y[50:] = 0
    parts = three_parts(Rows(np.arange(60.0)[:, None], y), 0, "data", keys)
    names = [{keys[int(x)] for x in rows.x[:, 0]} for rows in (parts.train, parts.test)]
    assert not names[0] & names[1]
    assert set(parts.test.y) == {0, 1}


def test_validation_is_about_10_000_rows_of_large_sets_and_a_fifth_of_small_ones():
    for count, expected in ((60_000, 10_000), (100, 20)):
        x = np.arange(float(count))[:, None]
        train, validation = hold_out_validation(Rows(x, x), 0, "data")
        assert (len(train), len(validation)) == (count - expected, expected)


def test_too_few_rows_are_told():
    x = np.arange(3.0)[:, None]
    with pytest.raises(UserError, match="data has 3 rows: a task needs at least 10"):
        three_parts(Rows(x, x), 0, "data")
    same = np.zeros((50, 1))
    with pytest.raises(UserError, match="data has 1 distinct row:"):
        three_parts(Rows(same, same), 0, "data")


def test_a_class_with_too_few_rows_is_told_by_name():
    y = np.repeat([0, 1], [30, 4])
    rows = Rows(np.arange(34.0)[:, None], y, ("common", "rare"))
    with pytest.raises(UserError, match=r"class 'rare' of data has 4 distinct rows.* at least 5"):
        folds(rows, 5, 0, "data")


def test_a_row_in_two_parts_is_refused():
    def rows(*numbers):
        return Rows(np.array(numbers, float)[:, None], np.array(numbers, float)[:, None])

    check_given(Parts(rows(1, 2), rows(3, 5), rows(4, 6)), "data")
    with pytest.raises(UserError, match="data: 3 training rows occur in the test data too"):
        check_given(Parts(rows(1, 2, 4, 4, 6), rows(3, 5), rows(4, 6)), "data")
    with pytest.raises(UserError, match="1 validation row occurs in the test data too"):
        check_given(Parts(rows(1, 2), rows(3, 4), rows(4, 6)), "data")
    with pytest.raises(UserError, match="data has 1 test row: every part needs at least 2"):
        check_given(Parts(rows(1, 2), rows(3, 5), rows(4)), "data")
    assert shared_rows(rows(1, 2), rows(2)).tolist() == [False, True]


def test_keys_tell_the_sign_of_a_number_but_not_of_zero():
    keys = row_keys(np.array([[0.0], [-0.0], [1.0], [-1.0]]), np.zeros(4))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_standardisation_uses_the_training_data_only():
    draws = np.random.default_rng(0)
    train, test = draws.normal(5, 3, (50, 4)), draws.normal(-2, 9, (20, 4))
    train[:, 3] = 0.1
    first, second = standardise(train, test)
    np.testing.assert_allclose(first.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(first.std(0), [1, 1, 1, 0], atol=1e-6)
    expected = (test[:, :3] - train[:, :3].mean(0)) / train[:, :3].std(0)
    np.testing.assert_allclose(second[:, :3], expected, rtol=1e-5)
