"""Generations of a long run taken together: a picture has only as many parts as can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

MOST = 100
"""So many generations are drawn one by one, and so many stretches of a longer run."""

_Any = TypeVar("_Any")


def length(generations: int) -> int:
    """How many generations a picture takes together; 1 for runs of usual length."""
    return math.ceil(generations / MOST) or 1


def ends(generations: int) -> list[tuple[int, int]]:
    """(begin, end) of each stretch, counted from 0; the last one may be shorter."""
    step = length(generations)
    return [(n, min(n + step, generations)) for n in range(0, generations, step)]


def name(begin: int, end: int) -> str:
    """`12`, or `201–240`: the generations of a stretch, counted from 1."""
    return f"{end}" if end == begin + 1 else f"{begin + 1}–{end}"


def thinned(found: Sequence[_Any], most: int) -> Sequence[_Any]:
    """At most so many of them, evenly spaced; all if they are not more."""
    return found[:: math.ceil(len(found) / most) or 1]
