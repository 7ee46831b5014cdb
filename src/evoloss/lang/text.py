"""Expressions as infix text: `square(y - f)`; `parse` reads back exactly what this writes."""

import math

from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.network import NAME, WEIGHTS, Network
from evoloss.lang.ops import OPERATORS

ATOM = 4
EXACT = 17
"""So many digits change no number: with them a text is exact but for a network's weights."""


def number(value: float, digits: int | None = None) -> str:
    """A constant: whole numbers without a point, others so that they read back exactly.

    digits: significant digits to round to, for display; None keeps every digit.
    """
    if digits is not None and math.isfinite(rounded := float(f"{value:.{digits}g}")):
        value = rounded
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value)}" if str(value) != "-0.0" else "-0.0"
    return repr(float(value))


def to_text(expr: Expr, digits: int | None = None) -> str:
    """The infix text of an expression, with the fewest parentheses that keep the tree's shape.

    digits: for display: constants rounded to so many, and of a network's weights only a digest.
    """
    return _write(expr, digits)[0]


def _write(expr: Expr, digits: int | None) -> tuple[str, int]:
    """The text and the precedence of its outermost operator."""
    match expr:
        case Input(name):
            return name, ATOM
        case Const(value):
            text = number(value, digits)
            return text, 3 if text.startswith("-") else ATOM
        case Network():
            if digits is None:
                return f'{NAME}(y, f, "{expr.encoded}")', ATOM
            return f"{NAME}(y, f; {WEIGHTS} weights, {expr.digest})", ATOM
        case Call():
            if digits is not None:
                return _call(expr, digits)
            if expr.written is None:
                object.__setattr__(expr, "written", _call(expr, None))  # no part of its value
            return expr.written or _call(expr, None)


def _call(expr: Call, digits: int | None) -> tuple[str, int]:
    op, args, row = expr.op, expr.args, OPERATORS[expr.op]
    if row.infix is None:
        return f"{op}({', '.join(to_text(arg, digits) for arg in args)})", ATOM
    if row.arity == 1:
        # A sign before a number would read back as a negative constant.
        operand = _grouped(args[0], 3 if isinstance(args[0], Call) else ATOM, digits)
        if isinstance(args[0], Const):
            operand = f"({to_text(args[0], digits)})"
        return f"{row.infix}{operand}", row.precedence
    left = _grouped(args[0], row.precedence + (row.precedence == 0), digits)
    right = _grouped(args[1], row.precedence + 1, digits)
    space = "" if row.precedence == 2 else " "
    return f"{left}{space}{row.infix}{space}{right}", row.precedence


def _grouped(expr: Expr, least: int, digits: int | None) -> str:
    text, precedence = _write(expr, digits)
    return text if precedence >= least else f"({text})"
