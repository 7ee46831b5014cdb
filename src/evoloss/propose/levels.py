"""The same loss on the other level: of whole answers instead of tokens, or the other way round.

A loss of tokens pushes every token by its own probability, and goes on with the last few when the
answer is lost already. The same function of an answer's mean log-probability lets go of the answer
as a whole. Which does better is a matter of model and data, and no small change of a tree leads
from one to the other.
"""

from __future__ import annotations

from evoloss.lang.expr import Call, Expr, Input, inputs_of
from evoloss.lang.types import MASKS


def other_level(loss: Expr) -> Expr | None:
    """The loss on the other level; None for one that is of tokens in more than what it selects."""
    if not inputs_of(loss) & MASKS:
        return _of_tokens(loss)
    found = _of_sequences(loss)
    return None if inputs_of(found) & MASKS else found


def _of_sequences(expr: Expr) -> Expr:
    match expr:
        case Call("select", (Input(name), selected)) if name in MASKS:
            return _of_sequences(selected)
        case Call(op, args):
            return Call(op, tuple(map(_of_sequences, args)))
    return expr


def _of_tokens(expr: Expr) -> Expr:
    match expr:
        case Input(name):
            return Call("select", (Input(f"mask_{name.rpartition('_')[2]}"), expr))
        case Call(op, args):
            return Call(op, tuple(map(_of_tokens, args)))
    return expr
