"""Where the work on candidates is done: the one interface that this process and a pool share.

Work is a call by name on a list of items, one a candidate, all of them plain data: numbers, text,
lists, dictionaries and NumPy arrays. So the same call may run here or in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Plain = Any
"""JSON data in which NumPy arrays may occur."""
Tick = Callable[[float], None]
"""Told what share of a call is done."""


@dataclass(frozen=True)
class Fault:
    """Takes the place of an answer: the candidate that broke its worker, and how."""

    reason: str


class Workplace(Protocol):
    """What does the work. Its answers depend on the arguments alone, not on earlier calls."""

    def do(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain]:
        """One answer an item. common: what holds for all of them."""


@dataclass(frozen=True)
class Recipe:
    """How another process makes the same workplace.

    maker: `module:function`, called with the arguments, which are JSON data, and with the arrays as
    `data`. They are sent once, shared by all processes of a machine, and not to be written to.
    """

    maker: str
    arguments: Mapping[str, Any]
    data: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


class Executor(Protocol):
    """Does calls on any number of items, some of them together (a shard).

    What is together depends on the number of items alone, so answers are the same on every
    executor with the same shard size, down to the last bit.
    """

    def run(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain | Fault]:
        """One answer an item, in their order; a Fault where one cannot be had."""

    def close(self) -> None:
        """Ends what it started; nothing can be run any more."""


_FEWEST = 4
"""Shards of a call at least, if it has as many items: few losses go through the end of a race, and
would leave most workers without work."""


def shards(count: int, size: int | None) -> list[range]:
    """Numbers 0 … count − 1 in runs of nearly equal length, `size` at most; None: all together."""
    if size is None:
        return [range(count)] if count else []
    parts = max(-(-count // size), min(count, _FEWEST))
    ends = [part * count // parts for part in range(parts + 1)] if parts else []
    return [range(*each) for each in pairwise(ends)]
