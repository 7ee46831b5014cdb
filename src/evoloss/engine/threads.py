"""One compiled kernel over many losses, shared between the machine's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

from evoloss.machine import cores


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
