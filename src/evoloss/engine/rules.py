"""What each pass over a program does at one operator, as statements made from the operator's row.

Every generator of kernels writes these same statements, so that all have the same derivatives. With
x an operand, a, b or c: `Vx`, `Dx`, `Ax`, `Bx` are the operand's value, its derivative along the
direction, and the adjoints of the two; `wx` and `zx` its weight and the direction in it; `sx` takes
the sum that is the weight's own derivative. `v_`, `d_`, `a_`, `b_` are the same of the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evoloss.lang.ops import OPERANDS, Operator


@dataclass(frozen=True)
class Spelling:
    """How a language writes the statements.

    text: a text of the operator table in that language. element: what follows an array's name to
        name the element that is computed; empty where an array is computed as a whole.
    """

    text: Callable[[str], str]
    element: str = ""


Rule = Callable[[Operator, Spelling], list[str]]


def forward(row: Operator, spelling: Spelling) -> list[str]:
    """The value."""
    return [*_load(row, spelling), f"v_{spelling.element} = {spelling.text(row.value)}"]


def gradient(row: Operator, spelling: Spelling) -> list[str]:
    """The adjoints of the operands."""
    e = spelling.element
    return [
        *_load(row, spelling),
        f"v = v_{e}",
        *(f"A{x}{e} = w{x} * (a_{e} * ({text}))" for x, text in _firsts(row, spelling)),
    ]


def backward(row: Operator, spelling: Spelling) -> list[str]:
    """The adjoints of the operands and of their weights."""
    e = spelling.element
    lines = [*_load(row, spelling), f"v = v_{e}"]
    for x, text in _firsts(row, spelling):
        lines.append(f"u = a_{e} * ({text})")
        lines.append(f"s{x} += u * V{x}{e}")
        lines.append(f"A{x}{e} = w{x} * u")
    return lines


def tangent(row: Operator, spelling: Spelling) -> list[str]:
    """The derivative along the direction."""
    e = spelling.element
    terms = [f"({text}) * d{x}" for x, text in _firsts(row, spelling) if text != "0.0"]
    return [
        *_load(row, spelling),
        *_load_directions(row, spelling),
        f"v = v_{e}",
        f"d_{e} = {' + '.join(terms) or '0.0'}",
    ]


def backward_tangent(row: Operator, spelling: Spelling) -> list[str]:
    """With u = wV and t = wD + zV: ū = a·∂op + b·∂²op·t, t̄ = b·∂op, then back to V, D and w."""
    e = spelling.element
    lines = [*_load(row, spelling), *_load_directions(row, spelling), f"v = v_{e}"]
    for x, text in _firsts(row, spelling):
        lines.append(f"first = {text}")
        lines.append(f"u = {' + '.join([f'a_{e} * first', *_curvature(row, x, spelling)])}")
        lines.append(f"t = b_{e} * first")
        lines.append(f"s{x} += u * V{x}{e} + t * D{x}{e}")
        lines.append(f"A{x}{e} = w{x} * u + z{x} * t")
        lines.append(f"B{x}{e} = w{x} * t")
    return lines


def _load(row: Operator, spelling: Spelling) -> list[str]:
    """The weighted operands a, b, c; as in the table's texts."""
    return [f"{x} = w{x} * V{x}{spelling.element}" for x in OPERANDS[: row.arity]]


def _load_directions(row: Operator, spelling: Spelling) -> list[str]:
    """Their derivatives along the direction: w · dV + dw · V."""
    e = spelling.element
    return [f"d{x} = w{x} * D{x}{e} + z{x} * V{x}{e}" for x in OPERANDS[: row.arity]]


def _firsts(row: Operator, spelling: Spelling) -> list[tuple[str, str]]:
    return [(x, spelling.text(text)) for x, text in zip(OPERANDS, row.first, strict=False)]


def _curvature(row: Operator, x: str, spelling: Spelling) -> list[str]:
    """b · Σ_k ∂²op/∂x∂k · t_k, for the second derivatives that are not zero."""
    j = OPERANDS.index(x)
    terms = [
        f"({spelling.text(row.second[key])}) * d{OPERANDS[k]}"
        for k in range(row.arity)
        if (key := (min(j, k), max(j, k))) in row.second
    ]
    return [f"b_{spelling.element} * ({' + '.join(terms)})"] if terms else []
