"""Formulas in the page: what is shortened and split is still the same loss, and valid markup."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given

from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, Input
from evoloss.lang.parse import parse, parse_expression
from evoloss.report.mathematics import formula, mathml, shortened, split, width
from strategies import DYADIC, losses

GENERATOR = np.random.default_rng(0)
POINTS = {name: GENERATOR.uniform(0.1, 0.9, 50) for name in ("y", "f")}


def put_back(expr, parts):
    """The expression with every named part in its place again."""
    if isinstance(expr, Input) and expr.name in parts:
        return put_back(parts[expr.name], parts)
    if isinstance(expr, Call):
        return Call(expr.op, tuple(put_back(arg, parts) for arg in expr.args))
    return expr


@given(losses(DYADIC, max_leaves=30))
def test_parts_put_back_give_the_loss(expr):
    body, parts = split(expr, limit=12)
    assert put_back(body, {f"u{index}": part for index, part in parts}) == expr
    assert all(width(part) <= 12 for _, part in parts)


@given(losses(max_leaves=20))
def test_every_formula_is_well_formed(expr):
    ElementTree.fromstring(formula(expr).replace("&#x", "&amp;#x"))
    ElementTree.fromstring(mathml(expr))


@pytest.mark.parametrize(
    "text",
    [
        "square(1.2345*aq(1.5*y, -0.5*f) - 2*aq(f, 0.75))",
        "-y*log(f) + 3*aq(2*aq(y, f), f)",
        "0.1*aq(-3, -2*f)*max(y, f)",
    ],
)
def test_a_shortened_loss_has_the_same_values(text):
    expr = parse(text)
    found = numpy_value(shortened(expr, digits=12), POINTS)
    assert found == pytest.approx(numpy_value(expr, POINTS), rel=1e-9)


def test_constants_are_rounded_and_ones_left_out():
    assert shortened(parse("0.99999999*y - 1.234567*f")) == parse("y - 1.235*f")


def test_what_nobody_would_read_is_plain_text():
    expr = parse("+".join(f"tanh({number / 8}*y)*f" for number in range(1, 60)))
    found = ElementTree.fromstring(formula(expr))
    assert parse("".join(found.itertext())) == shortened(expr)
    assert found.find(".//math") is None


def test_equal_parts_share_a_name():
    part = "tanh(y*f + y - f)"
    body, parts = split(parse(f"{part}*sqrt({part}) + y"), limit=28)
    assert [part for _, part in parts] == [parse(part)]
    assert body == Call(
        "add", (Call("mul", (Input("u1"), Call("sqrt", (Input("u1"),)))), Input("y"))
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("y - (f - 1)", "y−(f−1)"),
        ("y*(f + 2)", "y·(f+2)"),
        ("y*-2", "y·(−2)"),
        ("square(y - f)", "(y−f)2"),
        ("square(square(f))*y", "y·(f2)2"),
        ("log(f)*y", "y·log⁡|f|"),
        ("1e-9*f + y", "1·10−9f+y"),
    ],
)
def test_what_is_read(text, shown):
    read = "".join(ElementTree.fromstring(mathml(parse_expression(text))).itertext())
    assert read == shown
