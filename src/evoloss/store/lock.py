"""One writer a run: a lock that the kernel frees when its holder dies, also by SIGKILL."""

import fcntl
import os
import time
from pathlib import Path

from evoloss.errors import UserError

FILE = "run.lock"
_ATTEMPTS = 5  # `holder` takes the lock for a moment; a writer must not trip over that


def acquire(directory: Path) -> int:
    """Takes the lock of a run directory and returns the descriptor whose closing frees it.

    Raises UserError with the holder's process id if another process has it.
    """
    descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    if not _locked(descriptor, fcntl.LOCK_EX):
        holder = _pid(descriptor)
        os.close(descriptor)
        raise UserError(
            f"run '{directory}' is being written by process {holder}: "
            "wait until it has finished, or stop it first"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def holder(directory: Path) -> int | None:
    """The id of the process that writes to a run now, if there is one."""
    try:
        descriptor = os.open(directory / FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        free = _locked(descriptor, fcntl.LOCK_SH, attempts=1)
        return None if free else _pid(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, mode: int, attempts: int = _ATTEMPTS) -> bool:
    for attempt in range(attempts):
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt + 1 < attempts:
                time.sleep(0.02)
    return False


def _pid(descriptor: int) -> int:
    """What the holder wrote; 0 in the instant before it has written."""
    return int(os.pread(descriptor, 20, 0) or b"0")
