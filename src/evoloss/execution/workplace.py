"""In whatever process the work is done: making the workplace, and saying what it raises."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from evoloss.errors import UserError
from evoloss.execution.crew import Broken, Death
from evoloss.execution.executor import Plain, Workplace
from evoloss.execution.shared_arrays import Arrays


def workplace(maker: str, arguments: Mapping[str, Any], data: Arrays) -> Workplace:
    """The workplace of a recipe."""
    from evoloss.tasks.plugin import load_callable

    made: Workplace = load_callable(maker)(**arguments, data=data)
    return made


def unheard(share: float) -> None:
    """Progress is told by shards."""


def reply(work: Callable[[], Any]) -> dict[str, Any]:
    """What the work returns, or what it raises in words."""
    try:
        return {"answer": work()}
    except UserError as error:
        return {"mistake": str(error)}
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return {"memory": "it ran out of memory"}
        return {"error": traceback.format_exc()}


def answer(reply: Mapping[str, Any]) -> Plain:
    """What a `reply` says. Raises: Death, UserError or Broken, as the work did."""
    if "memory" in reply:
        raise Death(reply["memory"])
    if "mistake" in reply:
        raise UserError(reply["mistake"])
    if "error" in reply:
        raise Broken(f"in a worker:\n{reply['error']}")
    return reply["answer"]
