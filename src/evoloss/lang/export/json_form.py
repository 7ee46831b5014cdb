"""Writes a loss as JSON and reads it back, without losing a bit.

An input is its name, a constant its number, a call the list of its operator and its operands:
`{"version": 1, "signature": "supervised", "expression": ["square", ["sub", "y", "f"]]}`. A network
is `["ml3", "y", "f", [its weights]]`.
"""

from __future__ import annotations

import json
from typing import Any

from evoloss.errors import LossError
from evoloss.lang.expr import Call, Const, Expr, Input, check
from evoloss.lang.network import INPUTS, NAME, Network
from evoloss.lang.ops import OPERATORS
from evoloss.lang.types import SIGNATURES, SUPERVISED, Signature

VERSION = 1


def to_json(expr: Expr, signature: Signature = SUPERVISED) -> str:
    """The loss as one line of JSON. Raises LossError if it is not a loss of the signature."""
    check(expr, signature)
    return json.dumps(
        {"version": VERSION, "signature": signature.name, "expression": _written(expr)}
    )


def from_json(text: str) -> Expr:
    """The loss that `to_json` wrote. Raises LossError if the text is anything else."""
    try:
        document = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise LossError(f"this is not JSON: {error}") from error
    if not isinstance(document, dict) or "expression" not in document:
        raise LossError('this JSON is not a loss: it has no "expression"')
    if document.get("version") != VERSION:
        raise LossError(
            f"the loss has format version {document.get('version')}, this evoloss reads {VERSION}:"
            " export it again"
        )
    signature = SIGNATURES.get(str(document.get("signature")))
    if signature is None:
        known = ", ".join(SIGNATURES)
        raise LossError(f"unknown signature '{document.get('signature')}' (known: {known})")
    return check(_read(document["expression"]), signature)


def _written(expr: Expr) -> str | float | list[Any]:
    match expr:
        case Input(name):
            return name
        case Const(value):
            return value
        case Network():
            return [NAME, *INPUTS, [float(digits) for digits in expr.digits]]
        case Call(op, args):
            return [op, *(_written(arg) for arg in args)]


def _read(node: object) -> Expr:
    match node:
        case str():
            return Input(node)
        case bool():
            raise LossError(f"'{node}' is no part of an expression: use a number")
        case int() | float():
            return Const(float(node))
        case ["ml3", "y", "f", [*weights]]:
            return _network(weights)
        case [str(op), *operands] if op in OPERATORS:
            return Call(op, tuple(_read(operand) for operand in operands))
        case [op, *_]:
            raise LossError(f"unknown operator '{op}' (known: {', '.join(OPERATORS)})")
        case _:
            raise LossError(f"'{node}' is no part of an expression: use a name, number or list")


def _network(weights: list[object]) -> Network:
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise LossError(f"'{weight}' is no weight of a network: use a number")
    return Network.of(float(weight) for weight in weights)  # type: ignore[arg-type]
