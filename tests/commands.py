"""What a command left behind, for the tests of the command line."""

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """Its exit status, and what it said where."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


def refused(done: Outcome, *texts: str) -> None:
    """One line with the texts, status 2, and nothing else said."""
    assert (done.status, done.out) == (2, ""), (done.out, done.err)
    assert done.err.startswith("evoloss: error: ")
    assert done.err.count("\n") == 1
    for text in texts:
        assert text in done.err
