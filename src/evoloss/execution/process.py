"""One worker process as the driver sees it: started, asked, watched, and killed with its children.

Memory is watched and not limited by RLIMIT_AS: torch reserves many times the address space that it
uses, so a limit on that strikes at random. What counts is the anonymous resident memory of the
whole process group; data that workers share does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path

from evoloss.execution import wire
from evoloss.execution.attempts import CalledOff
from evoloss.execution.crew import Death, Killed, Slow, Stillborn
from evoloss.execution.executor import Plain, Recipe
from evoloss.execution.workplace import answer

_WATCH = 0.2
"""Seconds between two looks at a worker's time and memory."""
_MAKING = 600.0
"""Seconds that a worker may take to import and to load its task."""
_DYING = 20.0
"""Seconds until a worker that hung up has ended: its keeper has to be given a processor first."""
_KEPT = 16
"""Pieces of 4 KiB that are kept of what a worker prints: the last ones."""


class Worker:
    """A process group that works by a recipe. When first asked it makes itself `ready`.

    files: descriptors of the recipe's data. memory: bytes that the group may hold.
    """

    def __init__(self, recipe: Recipe, files: Mapping[str, int], memory: int) -> None:
        self.memory = memory
        self._channel, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evoloss.execution.worker", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), *files.values()),
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "EVOLOSS_THREADS": "1",
            },
        )
        theirs.close()
        self._said: deque[bytes] = deque(maxlen=_KEPT)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._recipe = {
            "maker": recipe.maker, "arguments": recipe.arguments, "files": files,
        }  # fmt: skip
        self.ready = False

    @property
    def pid(self) -> int:
        """Of the process group."""
        return self._process.pid

    def ask(
        self, job: Mapping[str, Plain], seconds: float, off: threading.Event | None = None
    ) -> list[Plain]:
        """The answers to a job that may take so long. off: set when nobody needs them any more.

        Raises: Death, UserError, Broken, and CalledOff, whereafter it is of no more use.
        """
        off = off or threading.Event()
        if not self.ready:
            try:
                self._exchange(self._recipe, _MAKING, off)
            except Death as death:
                said = self.said[-500:].strip()
                raise Stillborn(f"{death}: {said}" if said else str(death)) from death
            self.ready = True
        answers: list[Plain] = self._exchange(job, seconds, off)
        return answers

    def kill(self) -> None:
        """Ends the process and all that it started; to be called once it is not needed."""
        # Before it is waited for: until then nobody else can get its number.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._channel.close()
        self._listener.join(timeout=1.0)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not self._listener.is_alive():
                stream.close()

    def _exchange(self, message: Plain, seconds: float, off: threading.Event) -> Plain:
        try:
            wire.send(self._channel, message)
            self._wait(seconds, off)
            reply = wire.receive(self._channel)
        except (EOFError, OSError) as error:
            raise self._obituary() from error
        return answer(reply)

    def _wait(self, seconds: float, off: threading.Event) -> None:
        """Until there is a reply or an end of the channel. Raises Death beyond the limits."""
        deadline = time.monotonic() + seconds
        while not self._channel.poll(_WATCH):
            if self._ended():
                raise self._obituary()
            if off.is_set():
                raise CalledOff
            if time.monotonic() > deadline:
                raise Slow(f"it took longer than {seconds:g} s")
            if _resident(self.pid) > self.memory:
                raise Death(f"it took more than {self.memory / 2**30:.3g} GiB of memory")

    def _ended(self) -> os.waitid_result | None:
        """How the worker ended, if it did; it stays to be waited for."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # killed by `kill` in the meantime
            return None

    def _obituary(self) -> Death:
        """How the worker died, which is seen a moment after its channel closed."""
        deadline = time.monotonic() + _DYING
        while (ended := self._ended()) is None:
            if self._process.returncode is not None:
                return Killed("the driver ended it")
            if time.monotonic() > deadline:
                return Death("it closed the channel to the driver")
            time.sleep(0.01)
        status = ended.si_status
        if ended.si_code == os.CLD_EXITED and status < 128:
            return Death(f"it ended the interpreter with status {status}")
        kind = Killed if status % 128 == signal.SIGKILL else Death
        return kind(f"it ended the interpreter by {_name(status % 128)}")

    @property
    def said(self) -> str:
        """The last of what it printed."""
        return b"".join(self._said).decode(errors="replace")

    def _listen(self) -> None:
        """Reads what the worker prints, so that it never waits for a reader, and keeps the end."""
        stream = self._process.stdout
        while stream is not None and (piece := os.read(stream.fileno(), 4096)):
            self._said.append(piece)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _resident(group: int) -> int:
    """Bytes of anonymous memory that the processes of a group hold."""
    total = 0
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may end while it is looked at
            # The name of the program, in parentheses, may hold anything.
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += _anonymous((each / "status").read_text())
    return total


def _anonymous(status: str) -> int:
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
