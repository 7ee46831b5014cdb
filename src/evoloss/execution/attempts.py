"""The shards of a call in the hands of workers, and a second worker for a shard that is late.

When nothing is left to hand out, a shard that takes much longer than the others is given to an idle
worker as well, as MapReduce does (Dean and Ghemawat 2004, section 3.6, backup tasks). Both work out
the same answers; the first is heard, and the other is called off.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from evoloss.execution.executor import Fault, Plain

_LATE = 3.0
"""A shard is late after so many times the median of those that are done."""
_PATIENCE = 10.0
"""Seconds before which no shard is late."""
_LOOK = 0.5
"""Seconds between two looks for shards that are late."""

Answers = list[Plain | Fault]


class CalledOff(Exception):
    """Another attempt at the same shard was faster."""


@dataclass(eq=False)
class Attempt:
    """At the items of a range. begun: when it was handed out, by the monotonic clock; None before.

    off: set as soon as another was faster.
    """

    part: range
    begun: float | None = None
    off: threading.Event = field(default_factory=threading.Event)

    def seconds(self) -> float:
        """Since it was handed out."""
        return 0.0 if self.begun is None else time.monotonic() - self.begun


class Attempts:
    """most: attempts at a time, each in one of as many threads.

    work: makes an attempt; call_off: has one end soon, whose answers nobody needs any more.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, most: int, work: Callable[[Attempt], Answers],
        call_off: Callable[[Attempt], None],
    ) -> None:  # fmt: skip
        self._threads = threads
        self._most = most
        self._work = work
        self._call_off = call_off
        self._running: dict[Future[Answers], Attempt] = {}
        self._took: list[float] = []

    def answered(self, parts: Sequence[range]) -> Iterator[tuple[range, Answers]]:
        """Each part once, as soon as it is answered. Raises: what the work does."""
        for part in parts:
            self._begin(part)
        while self._running:
            for done in wait(self._running, _LOOK, FIRST_COMPLETED).done:
                attempt = self._running.pop(done)
                if attempt.off.is_set():
                    continue
                answers = done.result()
                self._took.append(attempt.seconds())
                for other in self._running.values():
                    if other.part == attempt.part:
                        self._call_off(other)
                yield attempt.part, answers
            for part in self._late():
                self._begin(part)

    def _begin(self, part: range) -> None:
        attempt = Attempt(part)

        def begun() -> Answers:
            attempt.begun = time.monotonic()
            return self._work(attempt)

        self._running[self._threads.submit(begun)] = attempt

    def _late(self) -> list[range]:
        """Parts that idle workers should do as well."""
        attempts = list(self._running.values())
        if not self._took or any(each.begun is None for each in attempts):
            return []
        limit = max(_PATIENCE, _LATE * statistics.median(self._took))
        count = Counter(each.part for each in attempts)
        late = [
            each.part
            for each in attempts
            if count[each.part] == 1 and not each.off.is_set() and each.seconds() > limit
        ]
        return late[: self._most - len(attempts)]
