"""Meta-loss weights φ on the edges of an expression (EvoMAL's transitional procedure, § 3.3).

Every edge between a call and an operand carries one weight, numbered in pre-order: first the
edges of the root, operand by operand, each followed by the edges below it. The root has no edge
above it: a factor on the whole loss is a change of the learning rate and nothing else.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from evoloss.lang.expr import Call, Const, Expr, size, walk
from evoloss.lang.network import WEIGHTS, Network


def edge_count(expr: Expr) -> int:
    """The number of weights an expression takes: its nodes without the root."""
    return size(expr) - 1


def bind(expr: Expr, phi: Sequence[float]) -> Expr:
    """The ordinary expression that the weighted one computes: each operand times its weight.

    phi: `edge_count(expr)` numbers. A weight of exactly 1 leaves no trace; the weight of a
    constant is multiplied into it.
    """
    if len(phi) != edge_count(expr):
        raise ValueError(f"{edge_count(expr)} weights wanted, {len(phi)} given")
    return _bind(expr, iter(phi))


def _bind(expr: Expr, phi: Iterator[float]) -> Expr:
    if not isinstance(expr, Call):
        return expr
    args = []
    for arg in expr.args:
        weight = float(next(phi))
        args.append(_times(weight, _bind(arg, phi)))
    return Call(expr.op, tuple(args))


def _times(weight: float, operand: Expr) -> Expr:
    if weight == 1.0:
        return operand
    if isinstance(operand, Const):
        return Const(weight * operand.value)
    return Call("mul", (Const(weight), operand))


def constant_count(expr: Expr) -> int:
    """How many constants an expression has, the weights of its networks among them."""
    counts = {Const: 1, Network: WEIGHTS}
    return sum(counts.get(type(node), 0) for node in walk(expr))


def with_constants(expr: Expr, values: Sequence[float]) -> Expr:
    """The expression with other numbers for its constants, which are numbered in pre-order.

    The weights of a network count as constants. Raises LossError if a number is not finite.
    """
    return _with_constants(expr, iter(values))


def _with_constants(expr: Expr, values: Iterator[float]) -> Expr:
    match expr:
        case Const():
            return Const(float(next(values)))
        case Network():
            return Network.of(islice(values, WEIGHTS))
        case Call(op, args):
            return Call(op, tuple(_with_constants(arg, values) for arg in args))
    return expr
