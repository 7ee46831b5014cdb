"""What a name can stand for while a source is read: numbers, symbolic tensors, functions, lists."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.network import Network
from evoloss.lang.ops import OPERATORS, Kind
from evoloss.lang.reader.limits import MAX_ITEMS, Refusal
from evoloss.lang.types import Type

Value = Any
"""A number, a bool, None, a text, a tuple, or one of the classes below."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the source as an expression.

    trained: whether a gradient reaches the model through it; size and height: the expression's.
    """

    expr: Expr
    type: Type
    trained: bool = False
    size: int = 1
    height: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Branched(Tensor):
    """One of two vectors of different lengths; what is done to it is done to both.

    expr: the choice between them, which can only be computed where their lengths agree.
    """

    condition: Tensor = field(kw_only=True)
    yes: Tensor = field(kw_only=True)
    no: Tensor = field(kw_only=True)

    def side(self, condition: Tensor, yes: bool) -> Tensor:
        """The one that another choice by the same condition goes with; else both still."""
        if condition.expr != self.condition.expr:
            return self
        return self.yes if yes else self.no


class Items(tuple[Value, ...]):
    """A list of the source. It never changes: appending makes another."""

    __slots__ = ()


class Sorted(tuple[Value, ...]):
    """What sort, topk and max along a dimension return: (values, indices)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Known:
    """Something of torch, math or Python by its full name, such as `torch.exp`."""

    path: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a tensor that is about to be called."""

    owner: Tensor
    name: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A value that may exist but not be used; says why."""

    reason: str


@dataclass(eq=False)
class Scope:
    """The names of a function's body, with those around it."""

    names: dict[str, Value] = field(default_factory=dict)
    outer: Scope | None = None

    def find(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        raise Refusal(f"the name '{name}' is not defined")

    def names_of(self, value: Value) -> int:
        """How many names stand for this very object."""
        return sum(each is value for each in self.names.values())


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function or lambda of the source, with the values of its defaults."""

    name: str
    parameters: ast.arguments
    body: list[ast.stmt] | ast.expr
    scope: Scope
    defaults: tuple[Value, ...] = ()
    keyword_defaults: tuple[Value, ...] = ()


def is_number(value: Value) -> bool:
    return isinstance(value, int | float)


def printed(value: Value) -> str:
    """A value in a message; not what a list or a function holds, which may be endless."""
    return repr(value) if value is None or isinstance(value, int | float | str) else "..."


def items_of(value: Value) -> tuple[Value, ...]:
    """What a loop goes through."""
    if isinstance(value, Tensor):
        raise Refusal("a loop over the elements of a tensor: use operations on the whole tensor")
    if isinstance(value, Unusable):
        raise Refusal(value.reason)
    if not isinstance(value, tuple):
        raise Refusal("a loop can only go over a list, a tuple or a range")
    return value


def short(items: Iterable[Value]) -> Items:
    """A list, unless it is too long."""
    found: list[Value] = []
    for item in items:
        if len(found) >= MAX_ITEMS:
            raise Refusal(f"a list of more than {MAX_ITEMS} items")
        found.append(item)
    return Items(found)


def length_source(expr: Expr) -> Expr | None:
    """The simplest vector within an expression that has as many elements; None for a scalar."""
    match expr:
        case Input(name):  # references and masks are as long as what they belong to
            return Input(f"log_probs_{name.rpartition('_')[2]}")
        case Const() | Network():
            return None
        case Call(op, args):
            kind = OPERATORS[op].kind
            if kind is Kind.REDUCTION:
                return None
            if op in ("sort", "softmax", "like", "position"):
                return length_source(args[0])
            if kind is Kind.ARRANGEMENT:
                return expr
            sources = (length_source(arg) for arg in args)
            return next((source for source in sources if source is not None), None)
