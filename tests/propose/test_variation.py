"""Losses of one structure, varied: by how much, around what, and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.lang.expr import Const, walk
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING
from evoloss.propose.proposer import Individual, Space
from evoloss.propose.variation import (
    RATES,
    jittered,
    structure,
    structures,
    varied,
)

CONSTANTS = st.floats(-1e3, 1e3).filter(lambda c: abs(c) > 1e-3)
SPACE = Space(
    population=8, parsimony=1.4, retries=5, usual=parse("mean(log_probs_forget)", UNLEARNING),
    seeded=True, output="identity", random=lambda g, s: np.random.default_rng((g, s)),
    avoid=lambda loss, epochs=None, rate=1.0: False, signature=UNLEARNING, most_epochs=8,
)  # fmt: skip


def loss(one, other):
    return parse(f"{one!r}*mean(log_probs_forget) + {other!r}*mean(log_probs_retain)", UNLEARNING)


def person(id, one=1.0, other=-1.0, epochs=4, rate=1.0, details=None):
    return Individual(id, loss(one, other), float(id), epochs, rate=rate, details=details or {})


def constants(expr):
    return [node.value for node in walk(expr) if isinstance(node, Const)]


def many(members, count=2_000):
    return [varied(members, SPACE, np.random.default_rng(seed)) for seed in range(count)]


# One constant


@given(CONSTANTS, CONSTANTS, st.integers(0, 2**32))
def test_one_constant_moves_by_a_factor_and_keeps_its_sign(one, other, seed):
    before = loss(one, other)
    child = jittered(before, np.random.default_rng(seed))
    pairs = zip(constants(before), constants(child), strict=True)
    changed = [(b, a) for b, a in pairs if a != b]
    assert len(changed) <= 1
    for b, a in changed:
        assert math.exp(-6 * 0.7) < a / b < math.exp(6 * 0.7)
    assert structure(child) == structure(before)


def test_the_factor_is_log_normal():
    before = parse("2*mean(log_probs_forget)", UNLEARNING)
    children = [jittered(before, np.random.default_rng(seed)) for seed in range(400)]
    factors = [math.log(constants(child)[0] / 2) for child in children]
    assert np.mean(factors) == pytest.approx(0.0, abs=0.12)
    assert np.std(factors) == pytest.approx(0.7, abs=0.08)


def test_without_constants_nothing_moves():
    before = parse("mean(log_probs_forget)", UNLEARNING)
    assert jittered(before, np.random.default_rng(0)) == before


# All at once


def test_structures_stand_in_the_order_of_their_best():
    other = replace(person(1), expression=parse("mean(log_probs_forget)", UNLEARNING))
    found = structures([person(0), other, person(2, one=7.0)])
    assert [[each.id for each in own] for own in found] == [[0, 2], [1]]


@given(CONSTANTS, CONSTANTS, st.integers(0, 2**32))
def test_signs_and_structure_stay_and_bounds_hold(one, other, seed):
    members = [person(0, one, other, 1, RATES[0]), person(1, other, one, 8, RATES[-1])]
    found = varied(members, SPACE, np.random.default_rng(seed))
    assert structure(found.expression) == structure(members[0].expression)
    before = constants(members[0].expression)
    assert [c > 0 for c in constants(found.expression)] == [c > 0 for c in before]
    assert 1 <= found.epochs <= 8
    assert RATES[0] * 0.999 <= found.rate <= RATES[-1] * 1.001
    assert found.parents == (0, 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_steps_are_log_normal_half_the_time_and_shrink_with_the_members(count):
    found = many([person(n) for n in range(count)])
    rates = np.log([each.rate for each in found])
    moved = rates != 0.0
    assert moved.mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.04)  # one of four coordinates moves
    wanted = 0.7 / math.sqrt(count)
    assert rates[moved].std() == pytest.approx(wanted, rel=0.08)
    for place in range(2):
        logs = np.log(np.abs([constants(each.expression)[place] for each in found]))
        assert np.mean(logs) == pytest.approx(0.0, abs=0.05)
        assert logs[np.abs(logs) > 1e-9].std() == pytest.approx(wanted, rel=0.08)
    assert len({each.epochs for each in found}) > 3


def test_the_centre_is_the_weighted_geometric_mean_of_the_best_three():
    members = [
        person(0, one=1.0, rate=1.0), person(1, one=8.0, rate=2.0), person(2, one=64.0, rate=4.0),
        person(3, one=1e6, rate=8.0),
    ]  # fmt: skip
    found = many(members)
    assert all(each.parents == (0, 1, 2) for each in found)
    weights = np.array([1.0, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    ones = np.mean(np.log([constants(each.expression)[0] for each in found]))
    assert ones == pytest.approx(weights @ np.log([1.0, 8.0, 64.0]), abs=0.05)
    rates = np.mean(np.log([each.rate for each in found]))
    assert rates == pytest.approx(weights @ np.log([1.0, 2.0, 4.0]), abs=0.05)


TOO_LITTLE = {"forgetting": 0.2, "utility_kept": 0.9}
TOO_MUCH = {"forgetting": 0.99, "utility_kept": 0.6}
A_LITTLE_TOO_MUCH = {"forgetting": 0.99, "utility_kept": 0.94}


@pytest.mark.parametrize(
    ("details", "rate", "weight"),
    [
        ({"metrics": TOO_LITTLE}, 0.7 / 4, -0.7 / 2),
        ({"at_rung": TOO_LITTLE}, 0.7 / 4, -0.7 / 2),
        ({"metrics": TOO_MUCH}, 0.0, 0.7 / 2),
        ({"metrics": A_LITTLE_TOO_MUCH}, 0.0, 0.7 / 4),
        ({"metrics": {"forget_prob": 0.1}}, 0.0, 0.0),
        ({}, 0.0, 0.0),
    ],
)
def test_rate_and_weight_lean_to_what_the_best_member_fell_short_of(details, rate, weight):
    found = many([person(0, details=details)])
    assert np.mean(np.log([each.rate for each in found])) == pytest.approx(rate, abs=0.05)
    both = np.mean(np.log(np.abs([constants(each.expression) for each in found])), 0)
    assert both == pytest.approx([0.0, weight], abs=0.05)  # of what is forgotten, and of the other


def test_the_one_that_a_probability_is_taken_from_is_no_parameter():
    def made(one):
        text = f"-mean(log({one} - exp(log_probs_forget))) - 1*mean(log_probs_retain)"
        return replace(person(0), expression=parse(text, UNLEARNING))

    def ones(*members):
        return {constants(each.expression)[0] for each in many(list(members), 50)}

    assert ones(made(1.0)) == ones(made(1.0), made(1.0)) == {1.0}
    assert len(ones(made(1.1))) > 10
    assert len(ones(made(1.0), made(1.2))) > 10
    assert len({constants(each.expression)[1] for each in many([made(1.0)], 50)}) > 10


def test_a_constant_of_0_stays():
    found = many([person(0, other=0.0), person(1, other=3.0)], 50)
    assert all(constants(each.expression)[1] == 0.0 for each in found)
