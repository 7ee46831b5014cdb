"""Loss expressions: immutable trees of inputs, constants, networks and operator calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from evoloss.errors import LossError
from evoloss.lang.network import INPUTS, WEIGHTS, Network
from evoloss.lang.ops import BATCH_KINDS, OPERATORS, Kind, Operator
from evoloss.lang.types import SUPERVISED, Signature, Type
from evoloss.wording import counted


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
    """An operator of the table, by name, applied to its operands.

    written: its exact text and the text's precedence, kept by `to_text` once they were asked for.
    Canonical forms sort by the texts of the same subtrees at every level above them.
    """

    op: str
    args: tuple[Expr, ...]
    written: tuple[str, int] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        arity = OPERATORS[self.op].arity
        if len(self.args) != arity:
            raise LossError(f"{self.op} takes {counted(arity, 'operand')}, not {len(self.args)}")


Expr = Input | Const | Network | Call


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
    """What parsimony charges: the operators' complexities, one a leaf, one a network's weight."""
    if isinstance(expr, Network):
        return WEIGHTS
    own = OPERATORS[expr.op].complexity if isinstance(expr, Call) else 1
    return own + sum(complexity(child) for child in children(expr))


def inputs_of(expr: Expr) -> frozenset[str]:
    """The names of the inputs that occur."""
    named = {node.name for node in walk(expr) if isinstance(node, Input)}
    return frozenset(named).union(INPUTS if has_network(expr) else ())


def has_network(expr: Expr) -> bool:
    """Whether a neural network is part of the loss."""
    return any(isinstance(node, Network) for node in walk(expr))


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
            return _input(name, signature)
        case Network():
            for name in INPUTS:
                _input(name, signature)
            return Type.VECTOR
        case Call(op, args):
            return result_type(op, tuple(infer(arg, signature) for arg in args), signature)


def _input(name: str, signature: Signature) -> Type:
    if name not in signature.inputs:
        known = ", ".join(signature.inputs)
        raise LossError(f"unknown input '{name}': {_a(signature)} loss has {known}")
    return signature.inputs[name]


def result_type(op: str, types: tuple[Type, ...], signature: Signature) -> Type:
    row = OPERATORS[op]
    if row.kind in BATCH_KINDS:
        return _batch_result(row, types, signature)
    if row.kind is Kind.LOGICAL:
        if not set(types) <= {Type.MASK, Type.FLAG}:
            raise LossError(f"{op} wants comparisons as its operands, not a {types[0]}")
        return Type.MASK if Type.MASK in types else Type.FLAG
    numbers = types
    if row.kind is Kind.SELECTION:
        if types[0] not in (Type.MASK, Type.FLAG):
            raise LossError(f"{op} wants a comparison as its first operand, not a {types[0]}")
        numbers = types[1:]
    if {Type.MASK, Type.FLAG} & set(numbers):
        raise LossError(f"{op} cannot compute with the result of a comparison: use it in where()")
    vector = Type.VECTOR in types or Type.MASK in types
    if row.kind is Kind.COMPARISON:
        return Type.MASK if vector else Type.FLAG
    return Type.VECTOR if vector else Type.SCALAR


_ACCEPTED: Mapping[str, tuple[Type, ...]] = {
    "number": (Type.VECTOR, Type.SCALAR),
    "vector": (Type.VECTOR,),
    "scalar": (Type.SCALAR,),
    "mask": (Type.MASK, Type.FLAG),
}


def _batch_result(row: Operator, types: tuple[Type, ...], signature: Signature) -> Type:
    if not signature.reductions:
        verb = "reduces" if row.kind is Kind.REDUCTION else "works"
        raise LossError(
            f"{row.name} {verb} over the batch, but {_a(signature)} loss is written per element"
            f" (it is averaged over the batch by itself): leave {row.name} out"
        )
    for wanted, found in zip(row.takes, types, strict=True):
        if found not in _ACCEPTED[wanted]:
            raise LossError(f"{row.name} wants a {wanted} where it has a {found}")
    if row.kind is Kind.ARRANGEMENT:
        return Type.VECTOR
    return Type.FLAG if row.takes == ("mask",) else Type.SCALAR


def _a(signature: Signature) -> str:
    """The signature's name after the article it takes."""
    return f"a{'n' if signature.name[0] in 'aeiou' else ''} {signature.name}"


def check(expr: Expr, signature: Signature = SUPERVISED) -> Expr:
    """The expression itself if it is a loss of the signature.

    Raises LossError if it is ill-typed, lacks a required input or returns the wrong type.
    """
    found = infer(expr, signature)
    missing = [name for name in signature.required if name not in inputs_of(expr)]
    if missing:
        raise LossError(
            f"the loss does not use {' and '.join(missing)}: "
            f"{_a(signature)} loss needs {' and '.join(signature.required)}"
        )
    if found is not signature.output:
        raise LossError(f"the loss is a {found}; {_a(signature)} loss is a {signature.output}")
    return expr
