"""Gradients of scalar losses in NumPy, by reverse mode over the texts of the operator table.

For the cheap questions that are asked before torch is needed: does the loss have a gradient, which
way does it point, and is it another loss's gradient?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from evoloss.errors import LossError
from evoloss.lang.batch import Array
from evoloss.lang.evaluate import NUMPY, Function, numpy_operator, numpy_partials, table_function
from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.ops import BATCH_KINDS, NONE, OPERATORS


def value_and_gradients(
    expr: Expr, inputs: Mapping[str, Array], wrt: Sequence[str]
) -> tuple[float, dict[str, Array]]:
    """The value of a scalar loss and its gradient in some inputs, each of that input's shape.

    Infinite or NaN without a warning. Raises ValueError or IndexError where shapes do not fit.
    """
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in inputs.items()}
    gradients = {name: np.zeros_like(arrays[name]) for name in wrt}
    with np.errstate(all="ignore"):
        nodes: dict[int, _Node] = {}
        root = _forward(expr, arrays, frozenset(wrt), nodes)
        _backward(list(nodes.values()), gradients)
    return float(root.value), gradients


class _Node:
    """A node with its value; `live` is whether an input that is asked for lies below it."""

    __slots__ = ("below", "expr", "gradient", "live", "value")

    def __init__(self, expr: Expr, value: Any, below: tuple[_Node, ...], live: bool) -> None:
        self.expr = expr
        self.value = value
        self.below = below
        self.live = live
        self.gradient: Any = None


def _forward(
    expr: Expr, inputs: Mapping[str, Array], wrt: frozenset[str], known: dict[int, _Node]
) -> _Node:
    """Adds an expression's nodes, operands first; one that occurs as the same object, once."""
    if (seen := known.get(id(expr))) is not None:
        return seen
    match expr:
        case Input(name):
            node = _Node(expr, inputs[name], (), name in wrt)
        case Const(value):
            node = _Node(expr, np.float64(value), (), False)
        case Call(op, args):
            below = tuple(_forward(arg, inputs, wrt, known) for arg in args)
            value = numpy_operator(op)(*(child.value for child in below))
            live = any(
                child.live and text != NONE
                for child, text in zip(below, OPERATORS[op].first, strict=True)
            )
            node = _Node(expr, value, below, live)
        case _:
            raise LossError("a neural network works per element, not over the batch")
    known[id(expr)] = node
    return node


def _backward(nodes: list[_Node], found: dict[str, Array]) -> None:
    """Sends the root's gradient down: a node's is complete before its operands' turn comes."""
    nodes[-1].gradient = np.float64(1.0)
    for node in reversed(nodes):
        if node.gradient is None or not node.live:
            continue
        if isinstance(node.expr, Input):
            found[node.expr.name] += node.gradient
        if not isinstance(node.expr, Call):
            continue
        values = [child.value for child in node.below]
        for pull, child in zip(_pullbacks(node.expr.op), node.below, strict=True):
            if child.live and pull is not None:
                sent = pull(*values, v=node.value, g=node.gradient)
                sent = _shaped(sent, np.shape(child.value))
                child.gradient = sent if child.gradient is None else child.gradient + sent


def _shaped(gradient: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of an operand that was broadcast, or whose gradient is the same everywhere."""
    array = np.asarray(gradient)
    if array.shape == shape:
        return array
    if array.ndim > len(shape):
        return array.sum()
    if array.ndim and shape == (1,):
        return array.sum(keepdims=True)
    return np.broadcast_to(array, shape)


@cache
def _pullbacks(op: str) -> tuple[Function | None, ...]:
    """From operands, value v and its gradient g to each operand's; None where it has none."""
    row = OPERATORS[op]
    if row.kind in BATCH_KINDS:
        found = [table_function(text, row.arity, NUMPY, "g") for text in row.first]
    else:
        found = [_scaled(partial) for partial in numpy_partials(op)]
    return tuple(
        None if text == NONE else pull for text, pull in zip(row.first, found, strict=True)
    )


def _scaled(partial: Function) -> Function:
    def pull(*operands: Any, v: Any, g: Any) -> Any:
        return g * partial(*operands, v=v)

    return pull
