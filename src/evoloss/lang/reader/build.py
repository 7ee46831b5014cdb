"""Builds expressions from the operations of a source, tidied as they grow."""

from __future__ import annotations

import math

from evoloss.errors import LossError
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, Const, Expr, result_type
from evoloss.lang.ops import NONE, OPERATORS, Kind
from evoloss.lang.reader.limits import MAX_HEIGHT, MAX_NODES, Budget, Refusal
from evoloss.lang.reader.values import (
    Branched,
    Tensor,
    Unusable,
    Value,
    is_number,
    length_source,
)
from evoloss.lang.types import UNLEARNING, Signature, Type

_BOOLEAN = (Type.MASK, Type.FLAG)


class Builder:
    """Makes tensors; `frozen` is above 0 within torch.no_grad()."""

    def __init__(self, budget: Budget, signature: Signature = UNLEARNING) -> None:
        self.budget = budget
        self.signature = signature
        self.frozen = 0

    def tensor(self, value: Value) -> Tensor:
        """A value as a tensor. Raises Refusal if it is none."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Unusable):
            raise Refusal(value.reason)
        if is_number(value):
            return Tensor(constant(value), Type.SCALAR)
        if value is None:
            raise Refusal("None is used as a tensor")
        raise Refusal("a tensor or a number is wanted here")

    def number(self, value: Value) -> Tensor:
        """A value as a tensor of numbers: a mask becomes 0 and 1."""
        tensor = self.tensor(value)
        if tensor.type in _BOOLEAN:
            return self.apply("where", tensor, 1.0, 0.0)
        return tensor

    def mask(self, value: Value) -> Tensor:
        """A value as a mask: what is not 0 is true."""
        tensor = self.tensor(value)
        return tensor if tensor.type in _BOOLEAN else self.apply("ne", tensor, 0.0)

    def vector(self, value: Value) -> Tensor:
        tensor = self.number(value)
        if tensor.type is not Type.VECTOR:
            raise Refusal("a vector is wanted here, and this is a single number")
        return tensor

    def detach(self, value: Value) -> Tensor:
        tensor = self.tensor(value)
        return self.apply("detach", tensor) if tensor.trained else tensor

    def length(self, value: Value) -> Value:
        """The number of elements."""
        base = self.base(value)
        return 1 if base is None else self.apply("size", base)

    def base(self, value: Value) -> Tensor | None:
        """The simplest vector with as many elements; None for a single number."""
        tensor = self.tensor(value)
        if isinstance(tensor, Branched):
            return tensor
        self.budget.pass_over(tensor.size)
        source = length_source(tensor.expr)
        return None if source is None else self._source(source)

    def base_of_length(self, length: Value) -> Tensor | None:
        """The vector that a number of elements is the number of."""
        match length:
            case Tensor(Call("size", (vector,))):
                return self._source(vector)
        return None

    def like(self, value: Value, number: Value) -> Tensor:
        """A number for each element of a tensor."""
        base = self.base(value)
        single = self.tensor(number)
        if single.type is not Type.SCALAR:
            raise Refusal("the value to fill a tensor with must be a single number")
        return single if base is None else self.apply("like", base, single)

    def joined(self, values: Value, scalars: bool) -> Tensor:
        """The parts end to end: scalars for stack, vectors for cat."""
        if not isinstance(values, tuple) or not values:
            raise Refusal("a list of tensors is wanted here")
        parts = [self.number(value) for value in values]
        for part in parts:
            if (part.type is Type.SCALAR) is not scalars:
                wanted = "stack of vectors makes a matrix" if scalars else "cat wants vectors"
                raise Refusal(f"{wanted}: a loss works on vectors and single numbers")
        result = parts[0]  # one number is as good as a vector of one
        for part in parts[1:]:
            result = self.apply("cat", result, part)
        return result

    def apply(self, op: str, *operands: Value) -> Tensor:
        """An operator on tensors and numbers. Raises Refusal where it makes no sense."""
        self.budget.spend()
        row = OPERATORS[op]
        tensors = [self.tensor(operand) for operand in operands]
        if branched := next((each for each in tensors if isinstance(each, Branched)), None):
            return self._on_both(op, tensors, branched)
        if row.kind in (Kind.ELEMENTWISE, Kind.COMPARISON):
            tensors = [self.number(tensor) for tensor in tensors]
        elif row.kind is Kind.SELECTION:
            tensors[1:] = [self.number(tensor) for tensor in tensors[1:]]
        tensors, base = _unfilled(tensors, row.kind)
        found = _tidied(op, tensors) or self._call(op, tensors)
        if base is not None and found.type is Type.SCALAR:
            found = self._call("like", [base, found])
        if self.frozen and found.trained:
            found = self._call("detach", [found])
        return found

    def chosen(self, condition: Tensor, yes: Value, no: Value) -> Tensor:
        """One of two values, by a condition on the whole batch or on each element."""
        a, b = self.tensor(yes), self.tensor(no)
        self.budget.pass_over(a.size + b.size)
        if condition.type is not Type.FLAG or not _differ(a, b):
            return self.apply("where", condition, a, b)
        choice = self._call("where", [condition, self.number(a), self.number(b)])
        kind = a.type if a.type is b.type else choice.type
        return Branched(
            choice.expr, kind, choice.trained, choice.size, choice.height,
            condition=condition, yes=a, no=b,
        )  # fmt: skip

    def _on_both(self, op: str, operands: list[Tensor], branched: Branched) -> Tensor:
        """An operator on what a branch has left at different lengths, done in either branch."""
        condition = branched.condition
        yes, no = (
            self.apply(
                op,
                *(o.side(condition, way) if isinstance(o, Branched) else o for o in operands),
            )
            for way in (True, False)
        )
        return self.chosen(condition, yes, no)

    def _call(self, op: str, tensors: list[Tensor]) -> Tensor:
        row = OPERATORS[op]
        try:
            found = result_type(op, tuple(tensor.type for tensor in tensors), self.signature)
        except LossError as error:
            raise Refusal(str(error)) from None
        size = 1 + sum(tensor.size for tensor in tensors)
        height = 1 + max(tensor.height for tensor in tensors)
        if size > MAX_NODES or height > MAX_HEIGHT:
            raise Refusal(
                f"the expression is larger than {MAX_NODES} operations or deeper than {MAX_HEIGHT}"
            )
        trained = any(
            tensor.trained and text != NONE for tensor, text in zip(tensors, row.first, strict=True)
        )
        return Tensor(Call(op, tuple(t.expr for t in tensors)), found, trained, size, height)

    def _source(self, expr: Expr) -> Tensor:
        """A part of an expression as a tensor that only lends its length."""
        nodes, height, layer = 0, -1, [expr]
        while layer:
            nodes, height = nodes + len(layer), height + 1
            layer = [arg for node in layer if isinstance(node, Call) for arg in node.args]
        return Tensor(expr, Type.VECTOR, False, nodes, height)


def constant(value: float) -> Const:
    """A number of the source as a constant. Raises Refusal if it is not finite."""
    try:
        number = float(value)
    except OverflowError:
        raise Refusal("a number is too large") from None
    if not math.isfinite(number):
        raise Refusal(f"the number {number} is not finite")
    return Const(number)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two vectors are of different lengths, one of them being a part of an input."""
    lengths = [length_source(each.expr) for each in (a, b)]
    cut = any(isinstance(each, Call) for each in lengths)
    return cut and None not in lengths and lengths[0] != lengths[1]


def _unfilled(tensors: list[Tensor], kind: Kind) -> tuple[list[Tensor], Tensor | None]:
    """Tensors that hold one number throughout as that number, where that changes nothing.

    Returns: the operands, and the vector whose length is lost if all of them were such.
    """
    if kind in (Kind.REDUCTION, Kind.ARRANGEMENT, Kind.LOGICAL):
        return tensors, None
    filled = [isinstance(t.expr, Call) and t.expr.op == "like" for t in tensors]
    if not any(filled):
        return tensors, None
    others = any(
        t.type in (Type.VECTOR, Type.MASK) and not f for t, f in zip(tensors, filled, strict=True)
    )
    if kind is Kind.COMPARISON and not others:
        return tensors, None
    base, single = None, []
    for tensor, is_filled in zip(tensors, filled, strict=True):
        if is_filled and isinstance(tensor.expr, Call):
            vector, number = tensor.expr.args
            base = base or Tensor(vector, Type.VECTOR, False, tensor.size - 2, tensor.height - 1)
            tensor = Tensor(number, Type.SCALAR, tensor.trained, tensor.size - 2, tensor.height)
        single.append(tensor)
    return single, None if others else base


def _tidied(op: str, operands: list[Tensor]) -> Tensor | None:
    """The operands' own expression where the operator adds nothing; a number for numbers."""
    values = [t.expr.value if isinstance(t.expr, Const) else None for t in operands]
    row = OPERATORS[op]
    if row.kind is Kind.ELEMENTWISE and all(value is not None for value in values):
        value = float(numpy_value(Call(op, tuple(t.expr for t in operands)), {}))
        if not math.isfinite(value):
            raise Refusal(f"{op} of {', '.join(f'{v:g}' for v in values if v is not None)} "
                          f"is {value}")  # fmt: skip
        return Tensor(Const(value), Type.SCALAR)
    match op, values:
        case ("add", [0.0, None]) | ("mul", [1.0, None]):
            return operands[1]
        case ("add" | "sub", [None, 0.0]) | ("mul" | "div" | "pow", [None, 1.0]):
            return operands[0]
    return None


def simplest(builder: Builder, op: str, left: Value, right: Value) -> Tensor:
    """Arithmetic in the words of the language: x ** 2 is square(x), x + -y is x - y."""
    number = right.expr.value if _is_constant(right) else right
    if op == "pow" and is_number(number) and number in (2.0, 0.5):
        return builder.apply("square" if number == 2.0 else "root", left)
    if op == "mul" and is_number(number) and number == -1.0:
        return builder.apply("neg", left)
    number = left.expr.value if _is_constant(left) else left
    if is_number(number) and (op, number) in (("sub", 0.0), ("mul", -1.0)):
        return builder.apply("neg", right)
    number = right.expr.value if _is_constant(right) else right
    if op in _INVERSE:
        if is_number(number) and number < 0:
            return builder.apply(_INVERSE[op], left, -number)
        if isinstance(right, Tensor) and isinstance(right.expr, Call) and right.expr.op == "neg":
            operand = Tensor(right.expr.args[0], right.type, right.trained, right.size - 1,
                             right.height - 1)  # fmt: skip
            return builder.apply(_INVERSE[op], left, operand)
    return builder.apply(op, left, right)


_INVERSE = {"add": "sub", "sub": "add"}


def _is_constant(value: Value) -> bool:
    return isinstance(value, Tensor) and isinstance(value.expr, Const)
