"""Evaluates expressions on NumPy arrays and torch tensors, from the texts of the operator table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss.errors import LossError
from evoloss.lang.batch import BATCH, Array
from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.network import NAME, Network
from evoloss.lang.network_form import numpy_line, numpy_network, torch_network
from evoloss.lang.ops import BATCH_KINDS, OPERANDS, OPERATORS

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[..., Any]


def numpy_sigmoid(a: Any) -> Any:
    """1 / (1 + e^-a), without overflow: the exponential is only taken of -|a|."""
    small = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


NUMPY: Mapping[str, Function] = {
    "abs": np.abs, "sign": np.sign, "sqrt": np.sqrt, "exp": np.exp, "log": np.log,
    "tanh": np.tanh, "sigmoid": numpy_sigmoid, "softplus": lambda a: np.logaddexp(a, 0.0),
    "log1p": np.log1p, "expm1": np.expm1, "sin": np.sin, "cos": np.cos, "atan": np.arctan,
    "erf": np.vectorize(math.erf, otypes=[np.float64]), "floor": np.floor, "power": np.power,
    "detach": lambda a: a,
    "minimum": np.minimum, "maximum": np.maximum, "where": np.where, **BATCH,
}  # fmt: skip
"""The functions of the operator table's texts, for float64 arrays."""


@cache
def torch_functions() -> Mapping[str, Any]:
    """The functions of the operator table's texts, for tensors."""
    import torch

    def maximum(a: Tensor, b: Tensor | float) -> Tensor:
        # At the tie, clamp passes the whole gradient, as the table's domain guards do;
        # torch.maximum passes half, as the table's min and max do.
        return torch.maximum(a, b) if isinstance(b, torch.Tensor) else torch.clamp(a, min=b)

    def softplus(a: Tensor) -> Tensor:
        # Past 40, log(1 + e^a) is a to the last bit of a float64.
        return torch.nn.functional.softplus(a, threshold=40.0)

    return {
        "abs": torch.abs, "sign": torch.sign, "sqrt": torch.sqrt, "exp": torch.exp,
        "log": torch.log, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": softplus,
        "log1p": torch.log1p, "expm1": torch.expm1, "sin": torch.sin, "cos": torch.cos,
        "atan": torch.atan, "erf": torch.erf, "floor": torch.floor, "power": torch.pow,
        "detach": torch.detach, "minimum": torch.minimum, "maximum": maximum,
        "where": torch.where, "torch": torch,
    }  # fmt: skip


def table_function(text: str, arity: int, functions: Mapping[str, Any], *also: str) -> Function:
    """A text of the operator table as a function of its operands and the node's value `v`.

    The value may be left out where the text does not use it, as no operator's own value does.
    also: names of further parameters.
    """
    parameters = ", ".join([*OPERANDS[:arity], "v=None", *(f"{name}=None" for name in also)])
    function: Function = eval(f"lambda {parameters}: {text}", dict(functions))
    return function


@cache
def numpy_operator(op: str) -> Function:
    if op == NAME:
        return numpy_network
    row = OPERATORS[op]
    return table_function(row.value, row.arity, NUMPY)


@cache
def numpy_partials(op: str) -> tuple[Function, ...]:
    row = OPERATORS[op]
    return tuple(table_function(text, row.arity, NUMPY) for text in row.first)


@cache
def torch_operator(op: str) -> Function:
    if op == NAME:
        return torch_network
    row = OPERATORS[op]
    text = row.torch if row.kind in BATCH_KINDS else row.value
    return table_function(text, row.arity, torch_functions())


def evaluate(
    expr: Expr,
    inputs: Mapping[str, Any],
    function: Callable[[str], Function],
    constant: Callable[[float], Any],
) -> Any:
    """The value of an expression, in whatever numbers `function` and `constant` make.

    function: from an operator's name to a function of its operands; constant: from a number. A
    network's operands are y, f and the network itself.
    """
    match expr:
        case Input(name):
            return inputs[name]
        case Const(value):
            return constant(value)
        case Network():
            return function(NAME)(inputs["y"], inputs["f"], expr)
        case Call(op, args):
            return function(op)(*(evaluate(arg, inputs, function, constant) for arg in args))


def numpy_value(expr: Expr, inputs: Mapping[str, Array]) -> Array:
    """The value on arrays that broadcast against each other; infinite or NaN without a warning."""
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        return np.asarray(evaluate(expr, arrays, numpy_operator, np.float64))


def numpy_gradient(expr: Expr, inputs: Mapping[str, Array], wrt: str) -> Array:
    """The derivative of every element's loss with respect to that element of one input.

    inputs: arrays of one shape. Returns: an array of that shape. Raises LossError for a reduction,
    under which the elements do not stand alone. Forward mode: a node that does not depend on the
    input has None for a tangent.
    """
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        tangent = _forward(expr, arrays, wrt)[1]
    return np.broadcast_to(0.0 if tangent is None else tangent, arrays[wrt].shape)


def _forward(expr: Expr, inputs: Mapping[str, Array], wrt: str) -> tuple[Any, Any]:
    """The value and the tangent of a node."""
    match expr:
        case Input(name):
            return inputs[name], np.ones_like(inputs[name]) if name == wrt else None
        case Const(value):
            return np.float64(value), None
        case Network():
            line, by_y, by_f = numpy_line(inputs["y"], inputs["f"], expr)
            slope = {"y": by_y, "f": by_f}.get(wrt)
            tangent = None if slope is None else numpy_sigmoid(line) * slope
            return np.logaddexp(line, 0.0), tangent
        case Call(op, args):
            if OPERATORS[op].kind in BATCH_KINDS:
                raise LossError(f"{op} works over the batch: there is no gradient per element")
            pairs = [_forward(arg, inputs, wrt) for arg in args]
            values = [value for value, _ in pairs]
            value = numpy_operator(op)(*values)
            tangent = None
            for partial, (_, inner) in zip(numpy_partials(op), pairs, strict=True):
                if inner is not None:
                    term = partial(*values, value) * inner
                    tangent = term if tangent is None else tangent + term
            return value, tangent


def torch_value(expr: Expr, inputs: Mapping[str, Tensor]) -> Tensor:
    """The value on tensors that broadcast against each other; autograd passes through, twice too.

    Constants take the data type and the device of the first input.
    """
    import torch

    like = next(iter(inputs.values()))

    def constant(value: float) -> Tensor:
        return torch.full((), value, dtype=like.dtype, device=like.device)

    value: Tensor = evaluate(expr, inputs, torch_operator, constant)
    return value
