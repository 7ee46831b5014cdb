"""The executor of a Ray cluster: a shard is a Ray task, which Ray places wherever there is room.

The recipe with its data goes into the object store once; each process of Ray makes the workplace
once and keeps it. Ray's own retries are off, for whoever is to blame for a death is found as in a
pool. What tasks print stays in Ray's log files.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from evoloss.errors import NoWorkers, UserError
from evoloss.execution.crew import Crew, Death, Killed, Limits, Slow
from evoloss.execution.executor import Plain, Recipe, Workplace
from evoloss.execution.workplace import answer, reply, unheard, workplace
from evoloss.wording import counted

LOCAL = "local"
_AT_ONCE = 1_000
"""Tasks that wait in Ray's queue at most, each with a thread here; they tell it how far to grow."""
_SETUP = 600.0
"""Seconds that a process may take beyond those of the work, to import and to load its task."""

_kept: dict[str, Workplace] = {}
"""In a process of Ray: the workplace that it has made, by its recipe's number."""


class RayCluster(Crew):
    """address: of a running cluster, 'auto' for the one on this machine, 'local' starts one.

    limits: memory is what Ray sets aside for a task; what takes more than a node has is ended by
    Ray, and the candidate has failed. gpus: what Ray sets aside of them for a shard.
    Raises: UserError without Ray, without the cluster, or without the GPUs on this machine.
    """

    def __init__(
        self, recipe: Recipe, address: str, shard: int | None, limits: Limits | None = None,
        gpus: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(shard, limits)
        self.ray = _library()
        self._ours = _connected(self.ray, address)
        self._number = os.urandom(8).hex()
        self._recipe = self.ray.put(
            {"maker": recipe.maker, "arguments": dict(recipe.arguments), "data": dict(recipe.data)}
        )
        memory = self.limits.memory
        self._task = self.ray.remote(
            num_cpus=1, num_gpus=gpus or None, max_retries=0, memory=memory
        )(_work)
        self._lock = threading.Lock()
        self._waiting: set[Any] = set()
        self._closed = False
        if address == LOCAL:
            self._check_gpus(gpus)

    def at_once(self, shards: int) -> int:
        """All, so that Ray knows how much work there is."""
        return min(shards, _AT_ONCE)

    def ask(self, job: Mapping[str, Plain], seconds: float) -> list[Plain]:
        """See `Crew`; the seconds count from the start of the work, not while it is in a queue."""
        errors = self.ray.exceptions
        gone = (errors.TaskCancelledError, errors.WorkerCrashedError)
        # Answers lie where they were found until they are fetched, and may go with their node.
        lost = (errors.NodeDiedError, errors.ObjectLostError)
        begun = time.monotonic()
        waiting = self._submitted(job, seconds)
        try:
            found = self.ray.get(waiting)
        except (errors.OutOfMemoryError, errors.ObjectStoreFullError) as error:
            raise Death("it took more memory than its node has") from error
        except gone as error:
            if self._closed:
                raise NoWorkers("the workers are closed") from error
            if time.monotonic() - begun > seconds:
                raise Slow(f"it took longer than {seconds:g} s") from error
            raise Death("it crashed its worker") from error
        except lost as error:
            if self._closed:
                raise NoWorkers("the workers are closed") from error
            raise Killed("the node of Ray that it was on was lost") from error
        except errors.RayError as error:
            raise NoWorkers(f"Ray: {_line(error)}") from error
        finally:
            with self._lock:
                self._waiting.discard(waiting)
        answers: list[Plain] = answer(found)
        return answers

    def close(self) -> None:
        """Ends what is running, and the cluster if it was started here."""
        with self._lock:
            self._closed, waiting = True, set(self._waiting)
        for each in waiting:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.cancel(each, force=True)
        if self._ours:
            self.ray.shutdown()

    def _check_gpus(self, gpus: float) -> None:
        """A task would wait for them for ever; another cluster may grow until it has them."""
        there = max((node["Resources"].get("GPU", 0.0) for node in self.ray.nodes()), default=0.0)
        if gpus > there:
            self.close()
            raise UserError(
                f"{counted(gpus, 'GPU per shard', 'GPUs per shard')}, but Ray sees {there:g} on "
                "this machine: ask for fewer, or give the address of a cluster that has them"
            )

    def _submitted(self, job: Mapping[str, Plain], seconds: float) -> Any:
        with self._lock:
            if self._closed:
                raise NoWorkers("the workers are closed")
            waiting = self._task.remote(self._number, self._recipe, dict(job), seconds)
            self._waiting.add(waiting)
            return waiting


def _work(
    number: str, recipe: dict[str, Any], job: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """In a process of Ray. A hanging one ends itself: no Python is needed for that."""

    def made() -> Workplace:
        if number not in _kept:
            _kept.clear()
            _kept[number] = workplace(**recipe)
        return _kept[number]

    faulthandler.dump_traceback_later(_SETUP, exit=True)
    try:
        place = reply(made)
        if "answer" not in place:
            return place
        faulthandler.dump_traceback_later(seconds, exit=True)
        return reply(lambda: place["answer"].do(**job, tick=unheard))
    finally:
        faulthandler.cancel_dump_traceback_later()


def _library() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed: pip install 'evoloss[ray]'") from error
    return ray


def _connected(ray: Any, address: str) -> bool:
    """Whether the cluster was started here, and is to be ended here."""
    if ray.is_initialized():
        return False
    variables = {"EVOLOSS_THREADS": "1"}
    options = {}
    if address == LOCAL:  # other machines have paths of their own
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        options["include_dashboard"] = False
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", namespace="evoloss",
            runtime_env={"env_vars": variables}, **options,
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UserError(
            f"no Ray cluster at '{address}' ({_line(error)}): start one with `ray start --head`, "
            f"or give '{LOCAL}'"
        ) from error
    return True


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
