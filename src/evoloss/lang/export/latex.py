"""Writes a loss as LaTeX mathematics, from the templates of the operator table."""

from __future__ import annotations

import re

from evoloss.errors import LossError
from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.network import Network
from evoloss.lang.ops import OPERATORS
from evoloss.lang.text import ATOM, number


def to_latex(expr: Expr, digits: int = 3) -> str:
    """The formula, without dollar signs; constants rounded to `digits` significant digits.

    Raises LossError for a neural network, which has none.
    """
    text, _ = _write(expr, digits)
    return re.sub(r"\\left\(([a-z])\\right\)\^", r"\1^", text)  # (f)^2 is f^2


def _write(expr: Expr, digits: int) -> tuple[str, int]:
    """The formula and the precedence of its outermost operator."""
    match expr:
        case Input(name):
            escaped = name.replace("_", r"\_")
            return name if len(name) == 1 else rf"\mathrm{{{escaped}}}", ATOM
        case Const(value):
            return _number(value, digits)
        case Network():
            raise LossError("a neural network has no formula: export it as torch or json")
        case Call(op, args):
            row = OPERATORS[op]
            parts = [_write(arg, digits) for arg in args]
            if not row.latex.startswith(("{a}", "-{a}")):  # the template encloses its operands
                operands = [text for text, _ in parts]
                return row.latex.format(**dict(zip("abc", operands, strict=False))), ATOM
            # -(a · b) and -a · b are the same, so a product needs no parentheses after a sign.
            least = 2 if row.arity == 1 else row.precedence + (row.precedence == 0)
            operands = [
                _grouped(text, precedence, least + index, row.arity == 1 or index > 0)
                for index, (text, precedence) in enumerate(parts)
            ]
            return row.latex.format(**dict(zip("abc", operands, strict=False))), row.precedence


def _grouped(text: str, precedence: int, least: int, after_a_symbol: bool) -> str:
    """The operand in parentheses where it binds too loosely, or its minus would follow a symbol."""
    if precedence < least or (after_a_symbol and text.startswith("-")):
        return rf"\left({text}\right)"
    return text


def _number(value: float, digits: int) -> tuple[str, int]:
    text = number(value, digits)
    mantissa, exponent, power = text.partition("e")
    precedence = 3 if text.startswith("-") else ATOM
    if not exponent:
        return text, precedence
    if mantissa in ("1", "-1"):
        return f"{mantissa[:-1]}10^{{{int(power)}}}", precedence
    return rf"{mantissa} \cdot 10^{{{int(power)}}}", 2
