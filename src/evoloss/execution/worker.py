"""The process behind a worker: `python -m evoloss.execution.worker DESCRIPTOR`.

It is two processes in a process group of their own. The *keeper* does nothing but wait: when its
standard input closes, because the driver is done or dead, it kills the group and with it whatever
a candidate has started. Its *child* works, and may hang or crash as it likes.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import select
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evoloss.execution import wire
from evoloss.execution.executor import Workplace
from evoloss.execution.shared_arrays import mapped
from evoloss.execution.workplace import reply, unheard, workplace

_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


def main() -> None:
    """Forks before anything large is imported."""
    channel = int(sys.argv[1])
    keeper = os.getpid()
    child = os.fork()
    if child:
        os.close(channel)
        _keep(child)
    _die_with(keeper)
    _serve(Connection(channel))


def _keep(child: int) -> None:
    """Ends as the child ends, or with all of the group when the driver closes the input."""
    ended = os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(sys.stdin.fileno(), select.POLLIN)
    if ended not in [descriptor for descriptor, _ in waiting.poll()]:
        os.killpg(0, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _die_with(keeper: int) -> None:
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != keeper:  # it died before the line above
        os._exit(1)
    # Where memory runs out, the kernel is to take a worker and not the driver.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    faulthandler.enable()


def _serve(connection: Connection) -> None:
    """Makes the workplace, then answers calls until nobody is left to ask."""
    made: list[Workplace] = []

    def make() -> None:
        data = mapped(recipe["files"])
        made.append(workplace(recipe["maker"], recipe["arguments"], data))

    def work() -> Any:
        return made[0].do(**job, tick=unheard)

    with contextlib.suppress(EOFError, OSError):
        recipe = wire.receive(connection)
        wire.send(connection, reply(make))
        while made:
            job = wire.receive(connection)
            wire.send(connection, reply(work))


if __name__ == "__main__":
    main()
