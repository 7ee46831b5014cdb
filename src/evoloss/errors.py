"""The errors a user can cause; the command line prints them in one line and exits with status 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input; the message names the thing, the value and the way out in a line."""


class ShapeError(UserError):
    """A base network whose output does not have the shape the task's targets have."""


class NothingTrained(UserError):
    """A search none of whose losses could be trained."""


class NoWorkers(UserError):
    """Workers that cannot be had any more, which is no fault of what they were to do."""


class LossError(UserError):
    """An expression that is not a loss of the signature it is used with."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist: it tells the nearest one, else all of them."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose {' or '.join(choices)}"
    quoted = len(name) > 1 and name[0] == name[-1] == "'"  # who wrote them needs no second pair
    shown = name if quoted else f"'{name}'"
    return UserError(f"unknown {what} {shown}: {hint}")
