"""What this process may use of the machine, or of the container that it is in."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import Any

_CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells a container its limits, in the one way or the other."""
_PROCESSORS = ("cpu.max", "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us")
_MEMORY = ("memory.max", "memory/memory.limit_in_bytes")


@cache
def cores() -> int:
    """How many cores this process may use: those it is given, $EVOLOSS_THREADS at most."""
    most = int(os.environ.get("EVOLOSS_THREADS") or 2**16)
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, min(given, most, _share_of_processors()))


def memory_of_machine() -> int:
    """Bytes of memory in all."""
    pages: Any = os.sysconf("SC_PHYS_PAGES")
    there = int(pages) * os.sysconf("SC_PAGE_SIZE")
    match _told(_MEMORY):
        case [limit] if limit.isdigit():
            return min(there, int(limit))
    return there


def _share_of_processors() -> int:
    """As a container's limit says it: so much of their time in such a period."""
    match _told(_PROCESSORS):
        case [quota, period] if quota.isdigit():
            return math.ceil(int(quota) / int(period))
    return 2**16


def _told(places: tuple[str, ...]) -> list[str]:
    """The words of the files of the first place that there is."""
    for place in places:
        try:
            return " ".join((_CONTAINER / each).read_text() for each in place.split()).split()
        except OSError:
            continue
    return []
