"""Loss expressions: immutable trees of inputs, constants and operator calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from evoloss.errors import LossError
from evoloss.lang.ops import OPERATORS, Kind
from evoloss.lang.types import SUPERVISED, Signature, Type


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the signature, such as the target `y` or the prediction `f`."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A finite number."""

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise LossError(f"constant {self.value} is not finite: use a finite number")


@dataclass(frozen=True, slots=True)
class Call:
    """An operator of the table, by name, applied to its operands."""

    op: str
    args: tuple[Expr, ...]

    def __post_init__(self) -> None:
        arity = OPERATORS[self.op].arity
        if len(self.args) != arity:
            raise LossError(f"{self.op} takes {arity} operand(s), not {len(self.args)}")


Expr = Input | Const | Call


def call(op: str, *args: Expr) -> Call:
    """`Call(op, args)` without the tuple."""
    return Call(op, args)


def scaled(expr: Expr, factor: float) -> Expr:
    """factor · expr; the expression itself for a factor of 1."""
    return expr if factor == 1.0 else call("mul", Const(factor), expr)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The operands of a call; nothing for a leaf."""
    return expr.args if isinstance(expr, Call) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node, parents before children, left to right (pre-order)."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def size(expr: Expr) -> int:
    """The number of nodes."""
    return 1 + sum(size(child) for child in children(expr))


def height(expr: Expr) -> int:
    """The number of edges on the longest path from the root to a leaf; 0 for a leaf."""
    return max((1 + height(child) for child in children(expr)), default=0)


def complexity(expr: Expr) -> int:
    """The sum of the operators' complexities plus one per leaf: what parsimony charges."""
    own = OPERATORS[expr.op].complexity if isinstance(expr, Call) else 1
    return own + sum(complexity(child) for child in children(expr))


def inputs_of(expr: Expr) -> frozenset[str]:
    """The names of the inputs that occur."""
    return frozenset(node.name for node in walk(expr) if isinstance(node, Input))


def subtree(expr: Expr, position: int) -> Expr:
    """The node at a pre-order position, the root being 0. Raises IndexError past the end."""
    for index, node in enumerate(walk(expr)):
        if index == position:
            return node
    raise IndexError(f"position {position} in an expression of {size(expr)} nodes")


def replace(expr: Expr, position: int, new: Expr) -> Expr:
    """A copy in which the node at a pre-order position is replaced by `new`."""
    if position == 0:
        return new
    if not isinstance(expr, Call):
        raise IndexError(f"position {position} below a leaf")
    offset = 1
    args = list(expr.args)
    for index, child in enumerate(args):
        count = size(child)
        if offset <= position < offset + count:
            args[index] = replace(child, position - offset, new)
            return Call(expr.op, tuple(args))
        offset += count
    raise IndexError(f"position {position} in an expression of {offset} nodes")


def infer(expr: Expr, signature: Signature = SUPERVISED) -> Type:
    """The type of an expression. Raises LossError for an ill-typed or foreign one."""
    match expr:
        case Const():
            return Type.SCALAR
        case Input(name):
            if name not in signature.inputs:
                known = ", ".join(signature.inputs)
                raise LossError(f"unknown input '{name}': a {signature.name} loss has {known}")
            return signature.inputs[name]
        case Call(op, args):
            return _result(op, tuple(infer(arg, signature) for arg in args), signature)


def _result(op: str, types: tuple[Type, ...], signature: Signature) -> Type:
    kind = OPERATORS[op].kind
    if kind is Kind.REDUCTION:
        if not signature.reductions:
            raise LossError(
                f"{op} reduces over the batch, but a {signature.name} loss is written per element"
                f" (it is averaged over the batch by itself): leave {op} out"
            )
        return Type.SCALAR
    numbers = types
    if kind is Kind.SELECTION:
        if types[0] is not Type.MASK:
            raise LossError(f"{op} wants a comparison as its first operand, not a {types[0]}")
        numbers = types[1:]
    if Type.MASK in numbers:
        raise LossError(f"{op} cannot compute with the result of a comparison: use it in where()")
    if kind is Kind.COMPARISON:
        return Type.MASK
    return Type.VECTOR if Type.VECTOR in types or kind is Kind.SELECTION else Type.SCALAR


def check(expr: Expr, signature: Signature = SUPERVISED) -> Expr:
    """The expression itself if it is a loss of the signature.

    Raises LossError if it is ill-typed, lacks a required input or returns the wrong type.
    """
    found = infer(expr, signature)
    missing = [name for name in signature.required if name not in inputs_of(expr)]
    if missing:
        raise LossError(
            f"the loss does not use {' and '.join(missing)}: "
            f"a {signature.name} loss needs {' and '.join(signature.required)}"
        )
    if found is not signature.output:
        raise LossError(f"the loss is a {found}; a {signature.name} loss is a {signature.output}")
    return expr
