"""The executor of a Ray cluster: a shard is a Ray task, which Ray places wherever there is room.

The recipe with its data goes into the object store once. A process of Ray does no work itself: it
has a worker like those of a pool, which makes the workplace, is watched, and is killed with all
that it started. The worker is kept from task to task, unless Ray gives a task other GPUs. Ray's own
retries are off, for whoever is to blame for a death is found as in a pool; if a process of Ray
itself dies, none of the candidates is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from evoloss.errors import NoWorkers, UserError
from evoloss.execution.attempts import Attempt, CalledOff
from evoloss.execution.crew import Broken, Crew, Death, Killed, Limits, Slow, Stillborn
from evoloss.execution.executor import Plain, Recipe
from evoloss.execution.journal import Journal
from evoloss.execution.process import Worker
from evoloss.execution.shared_arrays import share
from evoloss.machine import memory_of_machine
from evoloss.wording import counted

LOCAL = "local"
_AT_ONCE = 1_000
"""Tasks that wait in Ray's queue at most, each with a thread here; they tell it how far to grow."""
_RAISED = {each.__name__: each for each in (Death, Slow, Killed, Stillborn, Broken, UserError)}
"""What a worker may raise, by name."""

_kept: dict[tuple[Any, ...], Worker] = {}
"""In a process of Ray: its worker, by the recipe's number, the memory and the GPUs that it has."""


class RayCluster(Crew):
    """address: of a running cluster, 'auto' for the one on this machine, 'local' starts one.

    limits: memory is also what Ray sets aside for a task; without it a worker may hold nine tenths
    of its machine's. gpus: what Ray sets aside of them for a shard.
    Raises: UserError without Ray, without the cluster, or without the GPUs on this machine.
    """

    def __init__(
        self, recipe: Recipe, address: str, shard: int | None, limits: Limits | None = None,
        gpus: float = 0.0, journal: Journal | None = None,
    ) -> None:  # fmt: skip
        super().__init__(shard, limits, journal)
        self.ray = _library()
        self._ours = _connected(self.ray, address)
        self._number = os.urandom(8).hex()
        self._recipe = self.ray.put(
            {"maker": recipe.maker, "arguments": dict(recipe.arguments), "data": dict(recipe.data)}
        )
        # By default, Ray ends a process that had a GPU after each task.
        self._task = self.ray.remote(
            num_cpus=1, num_gpus=gpus or None, max_retries=0, max_calls=0,
            memory=self.limits.memory,
        )(_work)  # fmt: skip
        self._lock = threading.Lock()
        self._waiting: dict[Attempt, Any] = {}
        self._closed = False
        if address == LOCAL:
            self._check_gpus(gpus)

    def at_once(self, shards: int) -> int:
        """All, so that Ray knows how much work there is."""
        return min(shards, _AT_ONCE)

    def ask(self, job: Mapping[str, Plain], seconds: float, attempt: Attempt) -> list[Plain]:
        """See `Crew`; the seconds count from the start of the work, not while it is in a queue."""
        errors = self.ray.exceptions
        waiting = self._submitted(job, seconds, attempt)
        try:
            found = self.ray.get(waiting)
        except (errors.OutOfMemoryError, errors.ObjectStoreFullError) as error:
            raise Death("it took more memory than its node has") from error
        except (
            errors.TaskCancelledError, errors.WorkerCrashedError, errors.NodeDiedError,
            errors.ObjectLostError,  # an answer stays where it was found until it is fetched
        ) as error:  # fmt: skip
            if self._closed:
                raise NoWorkers("the workers are closed") from error
            if attempt.off.is_set():
                raise CalledOff from error
            raise Killed("its process of Ray was killed, or a node was lost") from error
        except errors.RayError as error:
            raise NoWorkers(f"Ray: {_line(error)}") from error
        finally:
            with self._lock:
                self._waiting.pop(attempt)
        if "raised" in found:
            raise _RAISED[found["raised"]](found["why"])
        answers: list[Plain] = found["answers"]
        return answers

    def close(self) -> None:
        """Ends what is running, and the cluster if it was started here."""
        with self._lock:
            self._closed, waiting = True, list(self._waiting.values())
        for each in waiting:
            self._cancel(each)
        if self._ours:
            self.ray.shutdown()

    def call_off(self, attempt: Attempt) -> None:
        """See `Crew`."""
        with self._lock:
            attempt.off.set()
            waiting = self._waiting.get(attempt)
        if waiting is not None:
            self._cancel(waiting)

    def _cancel(self, waiting: Any) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.cancel(waiting, force=True)

    def _check_gpus(self, gpus: float) -> None:
        """A task would wait for them for ever; another cluster may grow until it has them."""
        there = max((node["Resources"].get("GPU", 0.0) for node in self.ray.nodes()), default=0.0)
        if gpus > there:
            self.close()
            raise UserError(
                f"{counted(gpus, 'GPU per shard', 'GPUs per shard')}, but Ray sees {there:g} on "
                "this machine: ask for fewer, or give the address of a cluster that has them"
            )

    def _submitted(self, job: Mapping[str, Plain], seconds: float, attempt: Attempt) -> Any:
        with self._lock:
            if self._closed:
                raise NoWorkers("the workers are closed")
            if attempt.off.is_set():
                raise CalledOff
            waiting = self._task.remote(
                self._number, self._recipe, dict(job), seconds, self.limits.memory
            )
            self._waiting[attempt] = waiting
            return waiting


def _work(
    number: str, recipe: dict[str, Any], job: dict[str, Any], seconds: float, memory: int | None
) -> dict[str, Any]:
    """In a process of Ray: what its worker answers, or raises."""
    who = number, memory, os.environ.get("CUDA_VISIBLE_DEVICES")
    if who not in _kept:
        _end()
        _kept[who] = _hired(recipe, memory or int(0.9 * memory_of_machine()))
    try:
        return {"answers": _kept[who].ask(job, seconds)}
    except (Death, Broken, UserError) as error:
        # Who could not make the workplace serves no more.
        if not _kept[who].ready or isinstance(error, Death):
            _end()
        return {"raised": type(error).__name__, "why": str(error)}


def _hired(recipe: dict[str, Any], memory: int) -> Worker:
    files = share(recipe["data"])
    try:
        return Worker(Recipe(recipe["maker"], recipe["arguments"]), files, memory)
    finally:
        for descriptor in files.values():
            os.close(descriptor)


def _end() -> None:
    while _kept:
        _kept.popitem()[1].kill()


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
