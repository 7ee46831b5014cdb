"""One compiled kernel over many losses, shared between the machine's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any


@cache
def cores() -> int:
    """How many cores this process may use: those it is given, $EVOLOSS_THREADS at most."""
    most = int(os.environ.get("EVOLOSS_THREADS") or 2**16)
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, min(given, most))


def spread(kernel: Callable[..., None], arguments: Sequence[Any], bounds: Sequence[int]) -> None:
    """kernel(*arguments, first, last) for each pair of neighbouring bounds, on a thread each.

    The kernel releases Python's lock; the first part runs on the calling thread.
    """
    own, *others = pairwise(bounds)
    running = [_pool().submit(kernel, *arguments, *part) for part in others]
    kernel(*arguments, *own)
    for part in running:
        part.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="evoloss-kernel")
