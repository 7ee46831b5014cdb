"""Infix text: what is printed reads back as it was, and mistakes are shown where they are."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoloss.errors import LossError
from evoloss.lang.expr import Const, Input, call
from evoloss.lang.parse import MAX_DEPTH, ParseError, parse, parse_expression
from evoloss.lang.text import number, to_text
from evoloss.lang.types import UNLEARNING
from strategies import ANY_NUMBER, expressions

Y, F = Input("y"), Input("f")


@given(expressions(max_leaves=20))
@settings(max_examples=500, deadline=None)
def test_parse_reads_what_to_text_writes(expr):
    assert parse_expression(to_text(expr)) == expr


@given(expressions(UNLEARNING))
@settings(max_examples=50, deadline=None)
def test_other_signatures_read_back_too(expr):
    assert parse_expression(to_text(expr), UNLEARNING) == expr


@pytest.mark.parametrize("value", [5e-324, -5e-324, 1.7976931348623157e308, 1e15, 1e16, 0.1, -3.0])
def test_extreme_constants_read_back(value):
    assert parse_expression(number(value)) == Const(value)
    assert parse_expression(to_text(call("neg", Const(value)))) == call("neg", Const(value))


def test_negative_zero_keeps_its_sign():
    assert math.copysign(1, parse_expression(to_text(Const(-0.0))).value) == -1


@given(ANY_NUMBER, st.integers(1, 17))
def test_rounding_for_display_never_fails(value, digits):
    assert math.isclose(float(number(value, digits)), value, rel_tol=10.0 ** (1 - digits))


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("y - f - 1", call("sub", call("sub", Y, F), Const(1))),
        ("y + f * 2", call("add", Y, call("mul", F, Const(2)))),
        ("(y + f) * 2", call("mul", call("add", Y, F), Const(2))),
        ("y / f / 2", call("div", call("div", Y, F), Const(2))),
        ("-y * f", call("mul", call("neg", Y), F)),
        ("-2 * f", call("mul", Const(-2), F)),
        ("y - -2", call("sub", Y, Const(-2))),
        ("-(2)", call("neg", Const(2))),
        ("--y", call("neg", call("neg", Y))),
        (".5 * 1.e2 * 1e-3", call("mul", call("mul", Const(0.5), Const(100)), Const(0.001))),
        (
            "where(y < f + 1, y, f)",
            call("where", call("lt", Y, call("add", F, Const(1))), Y, F),
        ),
        (" square (\n y - f ) ", call("square", call("sub", Y, F))),
        ("lt(y, f)", call("lt", Y, F)),
    ],
)
def test_precedence_and_association(text, expr):
    assert parse_expression(text) == expr


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (call("square", call("sub", Y, F)), "square(y - f)"),
        (call("sub", Y, call("sub", F, Const(1))), "y - (f - 1)"),
        (call("neg", call("mul", Y, F)), "-(y*f)"),
        (call("mul", call("add", Y, F), Const(-0.5)), "(y + f)*-0.5"),
        (call("where", call("gt", Y, F), Const(1), F), "where(y > f, 1, f)"),
    ],
)
def test_text_has_only_the_parentheses_it_needs(expr, text):
    assert to_text(expr) == text


@pytest.mark.parametrize(
    ("text", "message", "spot"),
    [
        ("square(y - x)", "unknown input 'x' (inputs: y, f)", "x"),
        ("y - sqare(f)", "unknown operator 'sqare', did you mean square?", "sqare"),
        ("y - zzzzz(f)", "unknown operator 'zzzzz' (known: add", "zzzzz"),
        ("y + log", "log is a function: write log(…)", "log"),
        ("y + @", "expected a number, an input or a function, found '@'", "@"),
        ("y f", "expected an operator or the end, found 'f'", "f"),
        ("(y - f", "expected ')', found the end", ""),
        ("y - f)", "expected an operator or the end, found ')'", ")"),
        ("y +", "found the end", ""),
        ("", "found the end", ""),
        ("y * * f", "found '*'", "* f"),
        ("aq(y) + f", "aq takes 2 operands, found 1", "aq"),
        ("f - log(y, f)", "log takes 1 operand, found 2", "log"),
        ("y + 1e999 * f", "the number 1e999 is too large", "1e999"),
        ("y\n+ ? ", "found '?'", "?"),
    ],
)
def test_the_caret_is_below_the_spot(text, message, spot):
    with pytest.raises(ParseError) as caught:
        parse(text)
    first, line, caret = str(caught.value).splitlines()
    assert message in first
    assert line == "  " + text.replace("\n", " ")
    column = text.index(spot) if spot else len(text.rstrip())
    assert caret == " " * (2 + column) + "^"


def test_depth_is_limited():
    assert parse("-" * (MAX_DEPTH - 1) + "y - f")
    assert parse("y" + " - f" * MAX_DEPTH)
    nested = "(" * MAX_DEPTH + "y - f" + ")" * MAX_DEPTH
    for text in (nested, "-" * MAX_DEPTH + "y - f", "y" + " - f" * (MAX_DEPTH + 1), "(" * 10**5):
        with pytest.raises(ParseError, match=f"nested deeper than {MAX_DEPTH} levels"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("square(y)", "does not use f"),
        ("f", "does not use y"),
        ("1", "does not use y and f"),
        ("y < f", "the loss is a mask"),
        ("mean(y - f)", "mean reduces over the batch"),
        ("(y < f) * y", "mul cannot compute with the result of a comparison"),
        ("where(y, f, 1)", "where wants a comparison as its first operand, not a vector"),
    ],
)
def test_what_parses_but_is_no_supervised_loss(text, message):
    with pytest.raises(LossError, match=message):
        parse(text)


def test_the_unlearning_signature():
    difference = parse("mean(log_probs_forget) - mean(log_probs_retain)", UNLEARNING)
    assert to_text(difference) == "mean(log_probs_forget) - mean(log_probs_retain)"
    preference = "mean(softplus(0.1*(log_probs_forget - ref_log_probs_forget)))"
    assert to_text(parse(preference, UNLEARNING)) == preference
    with pytest.raises(LossError, match="the loss is a vector"):
        parse("log_probs_forget", UNLEARNING)
    with pytest.raises(LossError, match="does not use log_probs_forget"):
        parse("mean(log_probs_retain)", UNLEARNING)
    with pytest.raises(ParseError, match="unknown input 'y'"):
        parse("mean(y)", UNLEARNING)
