"""Arrays in memory that processes of one machine share; it goes when the last of them ends."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


def share(arrays: Arrays) -> dict[str, int]:
    """By name, the descriptor of a file in memory that holds the array; to be closed by the caller.

    A process that inherits the descriptors finds the arrays with `mapped`.
    """
    return {name: _in_memory(each) for name, each in arrays.items()}


def mapped(files: Mapping[str, int]) -> dict[str, NDArray[np.generic]]:
    """The arrays behind descriptors; whoever writes to one has a copy of that page to himself."""
    return {
        name: np.asarray(np.load(f"/proc/self/fd/{descriptor}", mmap_mode="c"))
        for name, descriptor in files.items()
    }


def _in_memory(array: NDArray[np.generic]) -> int:
    descriptor = os.memfd_create("evoloss-data")
    with io.FileIO(os.dup(descriptor), "w") as raw, io.BufferedWriter(raw) as file:
        np.save(file, np.ascontiguousarray(array))
    return descriptor
