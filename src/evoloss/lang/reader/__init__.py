"""Reads the loss functions in a language model's reply as expressions, without running anything.

The source is interpreted symbolically: tensors are expressions, plain numbers are numbers, and what
is not on the white list is refused with its line and the reason.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from evoloss.errors import LossError
from evoloss.lang.expr import Expr, check
from evoloss.lang.reader.build import Builder
from evoloss.lang.reader.definitions import Definition, losses
from evoloss.lang.reader.limits import (
    MAX_FUNCTIONS,
    MAX_REPLY,
    MAX_TOTAL_NODES,
    Budget,
    Refusal,
)
from evoloss.lang.reader.parameters import arguments, returned
from evoloss.lang.reader.statements import Interpreter
from evoloss.lang.reader.values import Function, Tensor
from evoloss.lang.screening import fault
from evoloss.lang.types import UNLEARNING, Signature

__all__ = ["DEFAULT_EPOCHS", "MAX_EPOCHS", "MAX_REPLY", "Read", "Refused", "read"]

DEFAULT_EPOCHS = 5
MAX_EPOCHS = 10
_EPOCHS = re.compile(r"epochs?\W{1,4}(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Read:
    """A function that became a loss: its expression, its epochs (1 to 10) and its first line."""

    name: str
    expression: Expr
    epochs: int
    line: int


@dataclass(frozen=True)
class Refused:
    """A function that did not: the line of the reply, and what is wrong there."""

    name: str
    line: int
    reason: str


def read(reply: str, signature: Signature = UNLEARNING) -> list[Read | Refused]:
    """Every loss function of a reply, in the order of their lines.

    All answer blocks count; a later function of the same name replaces the earlier. An input that
    the signature lacks is None to the function. Losses without a gradient, or that push the wrong
    way, are refused too (`evoloss.lang.screening`). Time and memory are bounded, whatever the
    reply: below a second, and some ten megabytes above those of Python and NumPy.
    """
    if len(reply) > MAX_REPLY:
        return [Refused("", 1, f"the reply has more than {MAX_REPLY:,} characters: send a part")]
    interpreter = Interpreter(Builder(Budget(), signature))
    found: list[Read | Refused] = []
    nodes = 0
    for definition in losses(reply, interpreter):
        name, line = definition.name, definition.piece.line
        try:
            if len(found) >= MAX_FUNCTIONS:
                raise Refusal(f"a reply may have {MAX_FUNCTIONS} functions")
            tensor = _interpreted(definition, interpreter, signature)
            nodes += tensor.size
            if nodes > MAX_TOTAL_NODES:
                raise Refusal(f"the losses of a reply may have {MAX_TOTAL_NODES:,} operations")
            expression = _accepted(tensor.expr, signature)
            found.append(Read(name, expression, _epochs(definition), line))
        except Refusal as refusal:
            found.append(Refused(name, refusal.line or line, refusal.reason))
    return found


def _interpreted(definition: Definition, interpreter: Interpreter, signature: Signature) -> Tensor:
    """What the function returns for the inputs of the signature."""
    if definition.function is None:
        raise definition.refusal or Refusal("this is no function")
    interpreter.builder.budget.renew()
    given = arguments(definition.function, signature)
    try:
        value = interpreter.evaluator.call(definition.function, [], given)
    except RecursionError:
        raise Refusal("the source is nested too deep") from None
    return interpreter.builder.number(returned(value))


def _accepted(expr: Expr, signature: Signature) -> Expr:
    """The expression, if it is a loss worth training with."""
    try:
        check(expr, signature)
    except LossError as error:
        raise Refusal(str(error)) from None
    if reason := fault(expr, signature):
        raise Refusal(reason)
    return expr


def _epochs(definition: Definition) -> int:
    """The epochs that the docstring, or else a comment, asks for."""
    match = _EPOCHS.search(_docstring(definition.function)) or _EPOCHS.search(definition.piece.text)
    return min(max(int(match.group(1)), 1), MAX_EPOCHS) if match else DEFAULT_EPOCHS


def _docstring(function: Function | None) -> str:
    body = function.body if function else None
    match body:
        case [ast.Expr(ast.Constant(str(text))), *_]:
            return text
    return ""
