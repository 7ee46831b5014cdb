"""The executor of worker processes on this machine."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping

from evoloss.errors import NoWorkers, UserError
from evoloss.execution.attempts import Attempt
from evoloss.execution.crew import Crew, Limits
from evoloss.execution.executor import Plain, Recipe
from evoloss.execution.journal import Journal
from evoloss.execution.process import Worker
from evoloss.execution.shared_arrays import share
from evoloss.machine import memory_of_machine

_LEAST = 1 << 28
"""Bytes that a worker needs to have torch at hand."""
_USUAL = 1 << 30
"""Bytes that are left to each worker where nobody says how many there are to be."""


class Pool(Crew):
    """workers: how many processes; shard: how many items are worked on together.

    Raises: UserError for more workers than the machine's memory does for.
    """

    def __init__(
        self, recipe: Recipe, workers: int, shard: int | None, limits: Limits | None = None,
        journal: Journal | None = None,
    ) -> None:  # fmt: skip
        super().__init__(shard, limits, journal)
        self.recipe = recipe
        self.workers = workers
        whole = int(0.9 * memory_of_machine())
        self.memory = self.limits.memory or whole // workers
        if self.limits.memory is None and self.memory < _LEAST:
            raise UserError(
                f"{workers} workers are too many for this machine's memory: give at most "
                f"{whole // _LEAST}"
            )
        self._files = share(recipe.data)
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # started when there is work for it
        self._lock = threading.Lock()
        self._running: set[Worker] = set()
        self._closed = False

    def close(self) -> None:
        """Kills all workers; what they were doing is lost."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, set()
            files, self._files = self._files, {}
        for worker in running:
            worker.kill()
        for descriptor in files.values():
            os.close(descriptor)

    def at_once(self, shards: int) -> int:
        """As many as there are workers."""
        return self.workers

    @property
    def pids(self) -> list[int]:
        """The process groups at work now."""
        with self._lock:
            return [worker.pid for worker in self._running]

    def ask(self, job: Mapping[str, Plain], seconds: float, attempt: Attempt) -> list[Plain]:
        """See `Crew`; a worker that dies is replaced."""
        worker = self._idle.get()
        try:
            worker = worker or self._started()
            answers = worker.ask(job, seconds, attempt.off)
        except BaseException:
            if worker is not None:
                self._end(worker)
            self._idle.put(None)
            raise
        self._idle.put(worker)
        return answers

    def _started(self) -> Worker:
        with self._lock:
            if self._closed:
                raise NoWorkers("the workers are closed")
            worker = Worker(self.recipe, self._files, self.memory)
            self._running.add(worker)
        return worker

    def _end(self, worker: Worker) -> None:
        with self._lock:
            ours = worker in self._running
            self._running.discard(worker)
        if ours:  # else `close` kills it
            worker.kill()


def usual_workers(cores: int, shards: int) -> int | None:
    """One a core, but no more than there are shards or the machine's memory does for; None for one,
    for which this process will do."""
    count = min(cores, shards, int(0.9 * memory_of_machine()) // _USUAL)
    return count if count > 1 else None
