"""Runs the body of a function symbolically: what it returns, as an expression.

The statements still to run are a stack, so that a branch that depends on the data can run the rest
of the function once for either way, where one of them returns early.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from evoloss.lang.expr import Input
from evoloss.lang.reader import names, python
from evoloss.lang.reader.build import Builder
from evoloss.lang.reader.expressions import Evaluator
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.values import (
    Function,
    Items,
    Known,
    Scope,
    Tensor,
    Unusable,
    Value,
    items_of,
    short,
)


@dataclass(frozen=True, slots=True)
class _Round:
    """The next round of a loop."""

    loop: ast.For
    items: tuple[Value, ...]
    at: int


@dataclass(frozen=True, slots=True)
class _Leave:
    """The end of a `with torch.no_grad()`, which restores what was before."""

    frozen: int


_Step = ast.stmt | _Round | _Leave
_NOTHING = Unusable("the function returns nothing")


class Interpreter:
    """Reads functions with one builder, and so within one budget."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.evaluator = Evaluator(builder, self._run_function)

    def _run_function(self, function: Function, scope: Scope) -> Value:
        assert isinstance(function.body, list)
        frozen = self.builder.frozen
        try:
            return self.run(function.body[::-1], scope)
        finally:
            self.builder.frozen = frozen

    def run(self, steps: Sequence[_Step], scope: Scope) -> Value:
        """What is returned when the steps, the next one last, have run."""
        todo: list[_Step] = [*steps]
        while todo:
            step = todo.pop()
            try:
                self.builder.budget.spend()
                if isinstance(step, ast.Return):
                    return step.value and self.evaluator.value(step.value, scope)
                if isinstance(step, ast.If):
                    condition = self.evaluator.value(step.test, scope)
                    truth = python.truth(condition)
                    if truth is None and _jumps(step):
                        return self._either_way(step, condition, todo, scope)
                    if truth is None:
                        self._branch(step, condition, scope)
                    else:
                        todo += (step.body if truth else step.orelse)[::-1]
                else:
                    self._step(step, todo, scope)
            except Refusal as refusal:
                refusal.line = refusal.line or getattr(step, "lineno", None)
                raise
        return _NOTHING

    def _step(self, step: _Step, todo: list[_Step], scope: Scope) -> None:
        """Runs a step that does not return; what it holds comes next."""
        match step:
            case ast.Break() | ast.Continue():
                self._jump(step, todo)
            case ast.For():
                items = items_of(self.evaluator.value(step.iter, scope))
                todo.append(_Round(step, items, 0))
            case _Round(loop, items, at):
                if at == len(items):
                    todo += loop.orelse[::-1]
                else:
                    self.evaluator.bind(loop.target, items[at], scope)
                    todo += [_Round(loop, items, at + 1), *loop.body[::-1]]
            case ast.With():
                todo += [_Leave(self.builder.frozen), *step.body[::-1]]
                self._enter(step, scope)
            case _Leave(frozen):
                self.builder.frozen = frozen
            case _:
                self._simple(step, scope)

    def _either_way(
        self, step: ast.If, condition: Tensor, todo: list[_Step], scope: Scope
    ) -> Value:
        """Runs the rest of the function both ways, and chooses between what they return."""
        self.builder.budget.pass_over(len(scope.names))
        before, frozen = dict(scope.names), self.builder.frozen
        found = []
        for body in (step.body, step.orelse):
            scope.names, self.builder.frozen = dict(before), frozen
            found.append(self.run([*todo, *body[::-1]], scope))
        for value in found:
            if isinstance(value, Unusable):
                raise Refusal(value.reason)
        return self.evaluator.chosen(condition, found[0], found[1])

    def _branch(self, step: ast.If, condition: Tensor, scope: Scope) -> None:
        """Runs both branches, and chooses for every name between what they leave it with."""
        self.builder.budget.pass_over(len(scope.names))
        before, after = dict(scope.names), []
        for body in (step.body, step.orelse):
            scope.names = dict(before)
            self.run(body[::-1], scope)
            after.append(scope.names)
        yes, no = after
        scope.names = {name: self._merged(step, condition, name, yes, no) for name in {**yes, **no}}

    def _merged(
        self,
        step: ast.If,
        condition: Tensor,
        name: str,
        yes: dict[str, Value],
        no: dict[str, Value],
    ) -> Value:
        if name not in yes or name not in no:
            return Unusable(f"'{name}' is set in one branch only, and which one runs depends on "
                            f"the data (line {step.lineno})")  # fmt: skip
        if yes[name] is no[name]:
            return yes[name]
        try:
            return self.evaluator.chosen(condition, yes[name], no[name])
        except Refusal as refusal:
            return Unusable(f"'{name}' after the branch in line {step.lineno}: {refusal.reason}")

    def _jump(self, step: ast.Break | ast.Continue, todo: list[_Step]) -> None:
        while not isinstance(todo[-1], _Round):
            left = todo.pop()
            if isinstance(left, _Leave):
                self.builder.frozen = left.frozen
        if isinstance(step, ast.Break):
            todo.pop()

    def _enter(self, step: ast.With, scope: Scope) -> None:
        for item in step.items:
            context = item.context_expr
            called = context.func if isinstance(context, ast.Call) else context
            known = self.evaluator.value(called, scope)
            if known == Known("torch.no_grad"):
                self.builder.frozen = 1
            elif known == Known("torch.enable_grad"):
                self.builder.frozen = 0
            else:
                raise Refusal("'with' is read for torch.no_grad() only")

    def _simple(self, step: _Step, scope: Scope) -> None:
        """A statement that neither branches nor returns."""
        match step:
            case ast.Assign(targets, value):
                found = self.evaluator.value(value, scope)
                for target in targets:
                    self.evaluator.bind(target, found, scope)
            case ast.AnnAssign(target, _, value):
                if value is not None:
                    self.evaluator.bind(target, self.evaluator.value(value, scope), scope)
            case ast.AugAssign(target, op, value):
                self._augmented(step, target, op, value, scope)
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "append" | "extend"))):
                self._appended(step, name, scope)
            case ast.Expr(value):
                self.evaluator.value(value, scope)
            case ast.FunctionDef():
                scope.names[step.name] = self.defined(step, scope)
            case ast.Import() | ast.ImportFrom():
                self.imported(step, scope)
            case ast.Assert(test):
                if not python.truth(self.evaluator.value(test, scope)):
                    raise Refusal("an assertion that fails, or depends on the data")
            case ast.Pass():
                pass
            case _:
                assert isinstance(step, ast.stmt)
                raise Refusal(f"{_keyword(step)} is not read")

    def _augmented(
        self, step: ast.AugAssign, target: ast.expr, op: ast.operator, value: ast.expr, scope: Scope
    ) -> None:
        """x += y. On a tensor this works in place, so nothing else may stand for that tensor."""
        if not isinstance(target, ast.Name):
            raise Refusal("an assignment into a tensor, a list or an object")
        self.builder.budget.pass_over(len(scope.names))
        old = self.evaluator.value(ast.copy_location(ast.Name(target.id, ast.Load()), step), scope)
        if isinstance(old, Tensor) and (isinstance(old.expr, Input) or scope.names_of(old) > 1):
            raise Refusal(
                f"this changes the tensor '{target.id}' in place, which has another name too: "
                "write x = x + y"
            )
        new = self.evaluator.value(value, scope)
        scope.names[target.id] = python.binary(self.builder, op, old, new)

    def _appended(self, step: ast.Expr, name: str, scope: Scope) -> None:
        call = step.value
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        old = self.evaluator.value(call.func.value, scope)
        if not isinstance(old, Items) or len(call.args) != 1 or call.keywords:
            raise Refusal("append and extend are read for lists")
        if name not in scope.names or scope.names_of(old) > 1:
            raise Refusal(f"the list '{name}' has another name or owner")
        self.builder.budget.pass_over(len(scope.names) + len(old))
        new = self.evaluator.value(call.args[0], scope)
        scope.names[name] = short([*old, *(items_of(new) if call.func.attr == "extend" else [new])])

    def defined(self, step: ast.FunctionDef, scope: Scope) -> Function:
        """A function definition."""
        if step.decorator_list:
            raise Refusal("a decorator is not read", step.decorator_list[0].lineno)
        return self.evaluator.function(step.name, step.args, step.body, scope)

    def imported(self, step: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        """Gives the imported modules their names; only those that count as there anyway."""
        for alias in step.names:
            if isinstance(step, ast.ImportFrom):
                full = f"{step.module}.{alias.name}"
                scope.names[alias.asname or alias.name] = names.imported(full)
            else:
                found = names.imported(alias.name)
                name = alias.name.partition(".")[0]  # `import torch.nn` makes the name torch
                scope.names[alias.asname or name] = found if alias.asname else Known(name)


def _jumps(step: ast.If) -> bool:
    """Whether a branch may leave the statements in order."""
    todo: list[ast.stmt] = [*step.body, *step.orelse]
    while todo:
        match todo.pop():
            case ast.Return() | ast.Break() | ast.Continue():
                return True
            case ast.If(_, body, orelse) | ast.For(_, _, body, orelse):
                todo += body + orelse
            case ast.With(_, body):
                todo += body
    return False


def _keyword(step: ast.stmt) -> str:
    known = {"While": "a while loop", "Try": "try", "ClassDef": "a class", "Delete": "del",
             "Global": "global", "Nonlocal": "nonlocal", "Raise": "raise",
             "AsyncFunctionDef": "async def"}  # fmt: skip
    return known.get(type(step).__name__, f"the statement {type(step).__name__}")
