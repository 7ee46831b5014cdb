"""What trials of speed found out, kept per machine: a choice that is made once comes out once.

A trial on a busy machine comes out differently the next time, and whatever shares a batch or a
thread changes results in the last bits. So searches with equal seeds stay equal on a machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import torch

from evoloss.engine.compiled import cache_directory

Choice = dict[str, Any]


def remembered(kind: str, about: tuple[object, ...], find: Callable[[], Choice]) -> Choice:
    """What is kept of such a trial on this machine, or what `find` finds, which is kept then.

    kind: the folder; about: whatever the outcome depends on, besides the machine and torch.
    """
    what = (*about, torch.__version__, torch.get_num_threads(), os.cpu_count(), os.uname().machine)
    name = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    path = cache_directory() / kind / f"{name}.json"
    try:
        found: Choice = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        found = find()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.rename(path)  # whole or not at all
    except OSError:
        pass  # only repeatability over runs is lost, and only of the last bits
    return found
