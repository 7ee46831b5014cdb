"""Writes a loss as a sympy expression, from the texts of the operator table."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from evoloss.errors import LossError
from evoloss.lang.evaluate import evaluate, table_function
from evoloss.lang.expr import Expr, has_network, inputs_of
from evoloss.lang.ops import BATCH_KINDS, OPERATORS, Kind

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": sympy.Abs, "sign": sympy.sign, "sqrt": sympy.sqrt, "exp": sympy.exp,
    "log": sympy.log, "tanh": sympy.tanh, "minimum": sympy.Min, "maximum": sympy.Max,
    "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    "softplus": lambda a: sympy.Max(a, 0) + sympy.log(1 + sympy.exp(-sympy.Abs(a))),
    "log1p": lambda a: sympy.log(1 + a), "expm1": lambda a: sympy.exp(a) - 1,
    "sin": sympy.sin, "cos": sympy.cos, "atan": sympy.atan, "erf": sympy.erf,
    "floor": sympy.floor, "power": sympy.Pow,
    "where": lambda mask, yes, no: sympy.Piecewise((yes, mask), (no, True)),
    "number": lambda value: _number(value),
}  # fmt: skip


def to_sympy(expr: Expr) -> Any:
    """The loss as a sympy expression of real symbols with the names of the inputs.

    Whole numbers become integers, other constants floats. Raises LossError for a loss that sympy
    refuses, such as one with the maximum of 0 / 0, and for a neural network.
    """
    if has_network(expr):
        raise LossError("a neural network has no formula: export it as torch or json")
    symbols = {name: sympy.Symbol(name, real=True) for name in inputs_of(expr)}
    try:
        return evaluate(expr, symbols, _function, _number)
    except (TypeError, ValueError) as error:
        raise LossError(f"sympy cannot hold this loss ({error}): export it as torch") from error


def sympy_source(expr: Expr) -> str:
    """Python text that defines the inputs as symbols and `loss` as the expression."""
    text = _Printer().doprint(to_sympy(expr))
    inputs = sorted(inputs_of(expr))
    words = set(re.findall(r"\b[A-Za-z_]\w*", text)) - {*inputs, "True", "False"}
    names = ", ".join(inputs)
    return (
        f"from sympy import {', '.join(sorted({*words, 'symbols'}, key=str.lower))}\n\n"
        f'{names} = symbols("{" ".join(inputs)}", real=True)\n'
        f"loss = {text}\n"
    )


class _Printer(StrPrinter):  # type: ignore[misc]
    """sympy's text, with floats to the last digit."""

    def _print_Float(self, expr: Any) -> str:
        return repr(float(expr))


_RELATIONS: dict[str, Callable[..., Any]] = {
    "lt": sympy.Lt, "gt": sympy.Gt, "le": sympy.Le, "ge": sympy.Ge, "eq": sympy.Eq,
    "ne": sympy.Ne, "and": sympy.And, "or": sympy.Or, "not": sympy.Not,
}  # fmt: skip


def _number(value: float) -> Any:
    return sympy.Integer(int(value)) if value == int(value) else sympy.Float(value)


class _Numbers(ast.NodeTransformer):
    """Makes sympy numbers of the numbers in a text."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Call(ast.Name("number", ast.Load()), [node], [])


@cache
def _function(op: str) -> Callable[..., Any]:
    row = OPERATORS[op]
    if (relation := _RELATIONS.get(op)) is not None:
        return relation
    if row.kind is Kind.SELECTION:
        return _FUNCTIONS["where"]
    if op == "detach" or row.kind in BATCH_KINDS:
        raise LossError(f"sympy has no {op}: export the loss as torch, latex or json")
    tree = ast.fix_missing_locations(_Numbers().visit(ast.parse(row.value, mode="eval")))
    return table_function(ast.unparse(tree), row.arity, _FUNCTIONS)
