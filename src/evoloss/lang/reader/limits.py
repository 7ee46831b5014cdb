"""What a reply may cost to read, and how a refusal is told."""

from __future__ import annotations

from dataclasses import dataclass

MAX_REPLY = 200_000  # characters of a reply
MAX_SOURCE = 20_000  # characters of one function
MAX_NESTING = 20  # brackets within brackets: Python's parser may try 2^n ways of reading more
MAX_OPERATORS = 12  # in a row, such as --------x
MAX_DIGITS = 40  # of one number
MAX_FUNCTIONS = 40  # in a reply
MAX_CALLS = 30  # of functions within functions
MAX_ITEMS = 1_000  # of a list or a loop
MAX_STEPS = 5_000  # of interpretation, in one function
MAX_TOTAL_STEPS = 20_000  # in all functions of a reply
MAX_NODES = 600  # of one expression
MAX_HEIGHT = 80  # of one expression; the text of a loss may be nested 100 deep
MAX_TOTAL_NODES = 1_500  # of all expressions of a reply
_A_STEP = 10  # items of a list, names of a scope or parts of an expression


class Refusal(Exception):
    """A source that has no meaning as a loss, or is not on the white list; says where and why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass
class Budget:
    """The steps that are left for a reply, and for the function that is being read."""

    total: int = MAX_TOTAL_STEPS
    steps: int = MAX_STEPS

    def renew(self) -> None:
        """Another function begins."""
        self.steps = MAX_STEPS

    def spend(self, steps: int = 1) -> None:
        self.total -= steps
        self.steps -= steps
        if self.total < 0:
            raise Refusal(f"reading the reply takes more than {MAX_TOTAL_STEPS:,} steps")
        if self.steps < 0:
            raise Refusal(f"reading the function takes more than {MAX_STEPS:,} steps")

    def pass_over(self, items: int) -> None:
        """Going through the items of something takes time too, though nothing is interpreted."""
        self.spend(items // _A_STEP)
