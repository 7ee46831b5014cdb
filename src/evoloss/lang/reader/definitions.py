"""The functions, constants and imports at the top level of a reply."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.parameters import names_used, takes_forget
from evoloss.lang.reader.reply import Piece, pieces
from evoloss.lang.reader.source import tree_of
from evoloss.lang.reader.statements import Interpreter
from evoloss.lang.reader.values import Function, Scope, Unusable

_NUMBERED = re.compile(r"loss_fn_?\d+$")


@dataclass(frozen=True)
class Definition:
    """A function of a reply, or why it is none; piece: its text."""

    name: str
    piece: Piece
    function: Function | None
    refusal: Refusal | None = None


def losses(reply: str, interpreter: Interpreter) -> list[Definition]:
    """The loss functions of a reply, the last of each name, in the order of their lines.

    Those are the ones called loss_fn_1, loss_fn_2 and so on; where there are none, those that take
    the log-probabilities to forget and are not called by another.
    """
    found = _definitions(reply, interpreter)
    numbered = [each for each in found if _NUMBERED.match(each.name)]
    if numbered:
        return numbered
    used = set[str]().union(
        *(names_used(each.function) - {each.name} for each in found if each.function)
    )
    return [
        each
        for each in found
        if (takes_forget(each.function) if each.function else "forget" in each.piece.text)
        and each.name not in used
    ]


def _definitions(reply: str, interpreter: Interpreter) -> list[Definition]:
    """Every function, after its constants and imports were put in the scope they share."""
    scope = Scope()
    found: dict[str, Definition] = {}
    for piece in pieces(reply):
        definition = _define(piece, interpreter, scope)
        if definition is not None:
            found.pop(definition.name, None)  # a later one takes its place, and its place in order
            found[definition.name] = definition
    return list(found.values())


def _define(piece: Piece, interpreter: Interpreter, scope: Scope) -> Definition | None:
    """Puts a piece's name in the scope; the definition if it is one of a function."""
    name = piece.name
    if name is None and not piece.text.startswith(("import ", "from ")):
        return None
    budget = interpreter.builder.budget
    try:
        budget.renew()
        budget.spend(10 + len(piece.text) // 5)  # parsing is work as well
        tree = tree_of(piece.text, piece.line)
        if isinstance(tree, ast.Import | ast.ImportFrom):
            interpreter.imported(tree, scope)
            return None
        if name is None or not isinstance(tree, ast.FunctionDef | ast.Assign | ast.AnnAssign):
            return None
        interpreter.run([tree], scope)
    except Refusal as refusal:
        return _unreadable(piece, refusal, scope)
    value = scope.names.get(name)
    return Definition(name, piece, value) if isinstance(value, Function) else None


def _unreadable(piece: Piece, refusal: Refusal, scope: Scope) -> Definition | None:
    """A function that could not be read; None for prose, and for what is of no account."""
    if piece.name is None:
        return None
    scope.names[piece.name] = Unusable(f"'{piece.name}' could not be read: {refusal.reason}")
    if not piece.text.startswith(("def ", "async ", "@")) and not _NUMBERED.match(piece.name):
        return None
    return Definition(piece.name, piece, None, refusal)
