"""Evaluates the expressions of a source symbolically, by walking their syntax trees."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from evoloss.lang.reader import names, python
from evoloss.lang.reader.build import Builder
from evoloss.lang.reader.functions import Handler
from evoloss.lang.reader.limits import MAX_CALLS, MAX_DIGITS, Refusal
from evoloss.lang.reader.methods import METHODS, WHOLE, attribute
from evoloss.lang.reader.values import (
    Function,
    Items,
    Known,
    Method,
    Scope,
    Sorted,
    Tensor,
    Unusable,
    Value,
    is_number,
    items_of,
    short,
)
from evoloss.wording import counted

Body = Callable[[Function, Scope], Value]
"""Runs the body of a function in the scope of its arguments."""

_IGNORED = ("dtype", "device", "inplace", "requires_grad", "non_blocking", "out_dtype")
"""Keywords that change how a number is stored, not what it is."""
_RENAMED = {"axis": "dim", "self": "input", "x": "input"}


class Evaluator:
    """Walks expressions; `run` executes the body of a function that a source defines."""

    def __init__(self, builder: Builder, run: Body) -> None:
        self.builder = builder
        self.run = run
        self.calls = 0

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression stands for. Raises Refusal, with the line of the innermost part."""
        self.builder.budget.spend()
        try:
            found = self._value(node, scope)
        except Refusal as refusal:
            if refusal.line is None:
                refusal.line = node.lineno
            raise
        if isinstance(found, Unusable):
            raise Refusal(found.reason, node.lineno)
        return found

    def _value(self, node: ast.expr, scope: Scope) -> Value:
        match node:
            case ast.Constant(value):
                return _literal(value)
            case ast.Name(name):
                return self._name(name, scope)
            case ast.Attribute(owner, name):
                return self._attribute(self.value(owner, scope), name)
            case ast.BinOp(left, op, right):
                values = self.value(left, scope), self.value(right, scope)
                return python.binary(self.builder, op, *values)
            case ast.UnaryOp(op, operand):
                return python.unary(self.builder, op, self.value(operand, scope))
            case ast.Compare(left, ops, comparators):
                return self._comparison(left, ops, comparators, scope)
            case ast.BoolOp(op, values):
                return self._logic(isinstance(op, ast.And), values, scope)
            case ast.IfExp(test, yes, no):
                return self._choice(test, yes, no, scope)
            case ast.Call():
                return self._call(node, scope)
            case ast.Subscript(owner, key):
                return self._subscript(owner, key, scope)
            case ast.Tuple(items) | ast.List(items):
                return short(self._items(items, scope))
            case ast.ListComp(item, generators) | ast.GeneratorExp(item, generators):
                return short(self._comprehended(item, generators, Scope(outer=scope)))
            case ast.Lambda(parameters, body):
                return self.function("lambda", parameters, body, scope)
            case ast.NamedExpr(ast.Name(name), bound):
                scope.names[name] = self.value(bound, scope)
                return scope.names[name]
        raise Refusal(f"{_named(node)} is not read")

    def _name(self, name: str, scope: Scope) -> Value:
        try:
            return scope.find(name)
        except Refusal:
            if name in names.GLOBALS:
                return names.GLOBALS[name]
            raise

    def _attribute(self, owner: Value, name: str) -> Value:
        if name.startswith("_"):
            raise Refusal(f"the attribute {name} is not on the list of what can be read")
        if isinstance(owner, Known):
            return names.member(owner.path, name)
        if isinstance(owner, Sorted) and name in ("values", "indices"):
            return owner[name == "indices"]
        if isinstance(owner, Tensor):
            if name in METHODS:
                return Method(owner, name)
            if name.endswith("_"):
                raise Refusal(f"{name} changes a tensor in place: make a new one")
            return attribute(self.builder, owner, name)
        raise Refusal(f"the attribute {name} is not on the list of what can be read")

    def _comparison(
        self, left: ast.expr, ops: list[ast.cmpop], rest: list[ast.expr], scope: Scope
    ) -> Value:
        values = [self.value(each, scope) for each in (left, *rest)]
        found: list[Value] = [
            python.compare(self.builder, op, a, b)
            for op, a, b in zip(ops, values, values[1:], strict=False)
        ]
        return found[0] if len(found) == 1 else self._combined(True, found)

    def _combined(self, every: bool, values: Sequence[Value]) -> Value:
        """Conditions joined by `and` or `or`, where some depend on the data."""
        rest = []
        for value in values:
            truth = python.truth(value)
            if truth is None:
                rest.append(self.builder.mask(value))
            elif truth is not every:
                return truth
        found: Value = rest[0] if rest else every
        for each in rest[1:]:
            found = self.builder.apply("and" if every else "or", found, each)
        return found

    def _logic(self, every: bool, operands: list[ast.expr], scope: Scope) -> Value:
        """`and` and `or`: an operand that is not reached is not looked at."""
        open_values = []
        for operand in operands:
            value = self.value(operand, scope)
            truth = python.truth(value)
            if truth is None:
                open_values.append(value)
            elif truth is not every or (operand is operands[-1] and not open_values):
                return value if not open_values else self._decided(every, open_values, value)
        return self._combined(every, open_values)

    def _decided(self, every: bool, open_values: list[Value], value: Value) -> Value:
        if not isinstance(value, bool):
            raise Refusal("'and' and 'or' are read between conditions")
        return self._combined(every, [*open_values, value])

    def _choice(self, test: ast.expr, yes: ast.expr, no: ast.expr, scope: Scope) -> Value:
        condition = self.value(test, scope)
        truth = python.truth(condition)
        if truth is not None:
            return self.value(yes if truth else no, scope)
        return self.chosen(condition, self.value(yes, scope), self.value(no, scope))

    def chosen(self, condition: Tensor, yes: Value, no: Value) -> Value:
        """One of two values, by a condition that depends on the data. Raises Refusal if mixed."""
        self.builder.budget.spend()
        if yes is no or (is_number(yes) and is_number(no) and yes == no):
            return yes
        if isinstance(yes, tuple) and isinstance(no, tuple) and len(yes) == len(no):
            return Items(self.chosen(condition, a, b) for a, b in zip(yes, no, strict=True))
        if all(isinstance(each, Tensor) or is_number(each) for each in (yes, no)):
            return self.builder.chosen(self.builder.mask(condition), yes, no)
        raise Refusal("a branch that depends on the data must choose between tensors or numbers")

    def _subscript(self, owner: ast.expr, key: ast.expr, scope: Scope) -> Value:
        container = self.value(owner, scope)
        if not isinstance(key, ast.Slice):
            return python.element(self.builder, container, self.value(key, scope))
        bounds = [
            None if each is None else self.value(each, scope)
            for each in (key.lower, key.upper, key.step)
        ]
        return python.element(self.builder, container, slice(*bounds))

    def _items(self, items: list[ast.expr], scope: Scope) -> Iterator[Value]:
        for item in items:
            if isinstance(item, ast.Starred):
                values = items_of(self.value(item.value, scope))
                self.builder.budget.pass_over(len(values))
                yield from values
            else:
                yield self.value(item, scope)

    def _comprehended(
        self, item: ast.expr, generators: list[ast.comprehension], scope: Scope
    ) -> Iterator[Value]:
        first, *rest = generators
        if first.is_async:
            raise Refusal("an asynchronous loop is not read")
        for each in items_of(self.value(first.iter, scope)):
            self.bind(first.target, each, scope)
            conditions = [python.truth(self.value(test, scope)) for test in first.ifs]
            if None in conditions:
                raise Refusal("a list whose length depends on the data")
            if all(conditions):
                if rest:
                    yield from self._comprehended(item, rest, scope)
                else:
                    yield self.value(item, scope)

    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Assigns to a name, or to several that unpack a list."""
        self.builder.budget.spend()
        if isinstance(target, ast.Name):
            scope.names[target.id] = value
            return
        if not isinstance(target, ast.Tuple | ast.List):
            raise Refusal("an assignment into a tensor, a list or an object", target.lineno)
        values = items_of(value)
        if len(values) != len(target.elts):
            names, given = counted(len(target.elts), "name"), counted(len(values), "value")
            raise Refusal(f"{names} for {given} to unpack", target.lineno)
        for each, part in zip(target.elts, values, strict=True):
            self.bind(each, part, scope)

    def function(
        self, name: str, parameters: ast.arguments, body: list[ast.stmt] | ast.expr, scope: Scope
    ) -> Function:
        """A function or lambda that the source defines; its defaults are evaluated here."""
        defaults = tuple(self.value(each, scope) for each in parameters.defaults)
        by_keyword = tuple(
            Unusable("a missing argument") if each is None else self.value(each, scope)
            for each in parameters.kw_defaults
        )
        return Function(name, parameters, body, scope, defaults, by_keyword)

    def _call(self, node: ast.Call, scope: Scope) -> Value:
        function = self.value(node.func, scope)
        arguments = list(self._items(node.args, scope))
        keywords = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise Refusal("a call with **")
            keywords[keyword.arg] = self.value(keyword.value, scope)
        match function:
            case Function():
                return self.call(function, arguments, keywords)
            case Method(owner, name):
                return self._known(METHODS[name], name, [owner, *arguments], keywords)
            case Known(path):
                return self._known(names.handler(path), path, arguments, keywords)
        raise Refusal("this cannot be called")

    def _known(
        self, handler: Handler, name: str, arguments: list[Value], keywords: dict[str, Value]
    ) -> Value:
        _check_type(name, keywords.get("dtype"))
        given = {key: value for key, value in keywords.items() if key not in _IGNORED}
        renamed = {_RENAMED.get(key, key): value for key, value in given.items()}
        self._pass_over(arguments)
        signature = _signature(handler)
        try:
            bound = signature.bind(self.builder, *arguments, **renamed)
        except TypeError as error:
            try:  # the name may be meant: pow of math has an x
                bound = signature.bind(self.builder, *arguments, **given)
            except TypeError:
                raise Refusal(f"{name}: {error}") from None
        found = handler(*bound.args, **bound.kwargs)
        self._pass_over([found])
        return found

    def _pass_over(self, values: Sequence[Value]) -> None:
        self.builder.budget.pass_over(sum(len(v) for v in values if isinstance(v, tuple)))

    def call(self, function: Function, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Calls a function that the source defines."""
        if self.calls >= MAX_CALLS:
            raise Refusal(f"more than {MAX_CALLS} functions within each other, as in a recursion")
        scope = Scope(outer=function.scope)
        scope.names.update(_arguments(function, arguments, keywords))
        self.builder.budget.pass_over(len(scope.names))
        self.calls += 1
        try:
            if isinstance(function.body, list):
                return self.run(function, scope)
            return self.value(function.body, scope)
        finally:
            self.calls -= 1


_signature = cache(inspect.signature)


def _arguments(
    function: Function, arguments: list[Value], keywords: dict[str, Value]
) -> dict[str, Value]:
    """The values of a function's parameters. Raises Refusal where they do not fit."""
    parameters = function.parameters
    positional = [each.arg for each in (*parameters.posonlyargs, *parameters.args)]
    by_keyword = [each.arg for each in parameters.kwonlyargs]
    found = dict(zip(positional[::-1], function.defaults[::-1], strict=False))
    found.update(zip(by_keyword, function.keyword_defaults, strict=True))
    if parameters.vararg:
        found[parameters.vararg.arg] = Items()
    if parameters.kwarg:
        found[parameters.kwarg.arg] = Unusable("a dictionary is not read")
    if len(arguments) > len(positional):
        raise Refusal(
            f"{function.name} takes {counted(len(positional), 'argument')}, not {len(arguments)}"
        )
    given = dict(zip(positional, arguments, strict=False))
    for name, value in keywords.items():
        if name in given or name not in (*positional, *by_keyword):
            raise Refusal(f"{function.name} has no free parameter '{name}'")
        given[name] = value
    found.update(given)
    for name in (*positional, *by_keyword):
        if name not in found or isinstance(found[name], Unusable):
            raise Refusal(f"{function.name} is called without '{name}'")
    return found


def _check_type(name: str, target: Value) -> None:
    """Refuses a data type that would not leave the numbers as they are."""
    kind = target.path.removeprefix("torch.") if isinstance(target, Known) else ""
    if kind in WHOLE or kind == "bool":
        raise Refusal(f"{name} with the data type {kind}")


def _literal(value: object) -> Value:
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise Refusal("a number is too large")
    if value is None or value is Ellipsis or isinstance(value, int | float | str):
        return value
    raise Refusal(f"a {type(value).__name__} is not read")


def _named(node: ast.AST) -> str:
    """What a piece of syntax is called in a message."""
    known = {"JoinedStr": "a formatted text", "Dict": "a dictionary", "Set": "a set",
             "Await": "await", "Yield": "yield"}  # fmt: skip
    return known.get(type(node).__name__, f"the syntax {type(node).__name__}")
