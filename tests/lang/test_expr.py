"""Expressions as trees: positions, sizes, types."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoloss.errors import LossError
from evoloss.lang.expr import (
    Call,
    Const,
    Input,
    call,
    check,
    complexity,
    height,
    infer,
    inputs_of,
    replace,
    size,
    subtree,
    walk,
)
from evoloss.lang.parse import parse, parse_expression
from evoloss.lang.types import UNLEARNING, Type
from strategies import expressions

EXPR = parse("square(y - f) + 2 * f")


def test_walk_is_pre_order():
    names = [getattr(n, "op", getattr(n, "name", getattr(n, "value", None))) for n in walk(EXPR)]
    assert names == ["add", "square", "sub", "y", "f", "mul", 2.0, "f"]


def test_measures():
    assert (size(EXPR), height(EXPR), complexity(EXPR)) == (8, 3, 8)
    assert (size(Const(1)), height(Const(1)), complexity(Const(1))) == (1, 0, 1)
    assert inputs_of(EXPR) == {"y", "f"}


@given(expressions(), expressions(), st.data())
@settings(max_examples=100, deadline=None)
def test_replace_puts_a_subtree_at_its_position(expr, new, data):
    position = data.draw(st.integers(0, size(expr) - 1))
    old = subtree(expr, position)
    changed = replace(expr, position, new)
    assert subtree(changed, position) == new
    assert size(changed) == size(expr) - size(old) + size(new)
    assert replace(changed, position, old) == expr


def test_positions_past_the_end():
    for position in (8, 100):
        with pytest.raises(IndexError):
            subtree(EXPR, position)
        with pytest.raises(IndexError):
            replace(EXPR, position, Const(1))


@given(expressions())
@settings(max_examples=100, deadline=None)
def test_random_trees_are_well_typed(expr):
    assert infer(expr) is not Type.MASK
    if inputs_of(expr):
        assert infer(expr) is Type.VECTOR


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 + 2", Type.SCALAR),
        ("1 + log_probs_forget", Type.VECTOR),
        ("mean(log_probs_forget)", Type.SCALAR),
        ("log_probs_forget < 1", Type.MASK),
        ("sum(log_probs_forget) * log_probs_retain", Type.VECTOR),
        ("where(log_probs_forget > 0, 1, 2)", Type.VECTOR),
        ("mean(where(log_probs_forget > 0, 1, log_probs_retain))", Type.SCALAR),
    ],
)
def test_types(text, found):
    assert infer(parse_expression(text, UNLEARNING), UNLEARNING) is found


def test_what_cannot_be_built():
    for value in (float("nan"), float("inf")):
        with pytest.raises(LossError, match="not finite"):
            Const(value)
    with pytest.raises(LossError, match=r"add takes 2 operands, not 1"):
        Call("add", (Input("y"),))


def test_check_hands_the_loss_back():
    assert check(EXPR) is EXPR
    with pytest.raises(LossError, match="unknown input 'x': a supervised loss has y, f"):
        check(call("add", EXPR, Input("x")))
