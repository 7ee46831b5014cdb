"""Weights on edges: binding them computes op(w · child) everywhere but above the root."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoloss.errors import LossError
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, Const, Expr, Input, size
from evoloss.lang.parse import parse
from evoloss.lang.text import to_text
from evoloss.lang.weights import bind, edge_count
from strategies import DYADIC, expressions


def test_the_order_is_that_of_the_paper_s_tree():
    expr = parse("square(y - f) * log(f)")
    assert edge_count(expr) == 6
    assert to_text(bind(expr, [2, 3, 4, 5, 6, 7])) == "2*square(3*(4*y - 5*f))*(6*log(7*f))"


def test_weights_of_one_leave_no_trace_and_constants_take_theirs_in():
    expr = parse("abs(y - f) + 2")
    assert bind(expr, [1.0] * edge_count(expr)) == expr
    assert to_text(bind(expr, [1, 1, 1, 1, 1.5])) == "abs(y - f) + 3"


def test_a_leaf_has_no_edges():
    assert edge_count(Input("f")) == 0
    assert bind(Input("f"), []) == Input("f")


def test_the_number_of_weights_has_to_fit():
    for phi in ([1.0], [1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="2 weights wanted"):
            bind(parse("y - f"), phi)
    with pytest.raises(LossError, match="not finite"):
        bind(parse("y - f"), [math.nan, 1.0])


def weighted(expr: Expr, phi, point) -> float:
    """Evaluates by definition, node by node, taking weights from an iterator in pre-order."""
    if isinstance(expr, Const):
        return expr.value
    if isinstance(expr, Input):
        return point[expr.name]
    operands = {}
    for name, arg in zip("abc", expr.args, strict=False):
        weight = next(phi)
        operands[name] = weight * weighted(arg, phi, point)
    node = Call(expr.op, tuple(Input(name) for name in operands))
    return float(numpy_value(node, operands))


@given(expressions(constants=DYADIC), st.data())
@settings(max_examples=150, deadline=None)
def test_bind_computes_every_operator_on_weighted_operands(expr, data):
    phi = data.draw(st.lists(DYADIC, min_size=size(expr) - 1, max_size=size(expr) - 1))
    point = {"y": 0.75, "f": -1.25}
    expected = weighted(expr, iter(phi), point)
    found = float(numpy_value(bind(expr, phi), point))
    assert found == expected or (math.isnan(found) and math.isnan(expected))
