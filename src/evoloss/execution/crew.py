"""What executors with workers of their own have in common: shards, and who is to blame for a death.

A shard whose worker dies is done again by a new one, whole and in the same shape, so its answers
are what they would have been. If that dies too, the shard is halved, and halved again, until the
candidate is found that breaks its worker alone; the shard is then done once more without it. What
the halves answered is only evidence: their shapes depend on who died when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from evoloss.errors import NoWorkers, UserError
from evoloss.execution.attempts import Attempt, Attempts, CalledOff
from evoloss.execution.executor import Fault, Plain, Tick, shards
from evoloss.execution.journal import Journal, recalled

_TRIES = 2
"""A shard that breaks so many workers is searched; a candidate that does so alone is to blame."""
_KILLINGS = 10
"""So often a shard is begun anew whose worker was killed from outside, before it is to blame."""
_STARTS = 20
"""So often a worker is started that dies before it has work."""
SECONDS = 3600.0
"""What a candidate may take where no limit is given."""
_SEARCHES = 3
"""So often a shard is searched for a culprit before the answers of its parts are taken."""


class Death(Exception):
    """A worker is gone, or had to be killed; the message says why, as of a candidate."""


class Slow(Death):
    """It took longer than it was allowed to."""


class Killed(Death):
    """SIGKILL from outside, which says little about who was at work."""


class Stillborn(Death):
    """It died before it was asked anything."""


class Broken(RuntimeError):
    """An error of ours in a worker, with its traceback there."""


@dataclass(frozen=True)
class Limits:
    """seconds: that one candidate may take in one call; a shard may take the sum.

    memory: bytes that one worker may hold; None shares nine tenths of the machine's.
    """

    seconds: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"worker {name} is {value}: give a number above 0")


class Crew(ABC):
    """An executor whose workers may die. shard: how many items are worked on together. journal:
    where their answers are kept until all are there, if anywhere."""

    def __init__(
        self, shard: int | None, limits: Limits | None, journal: Journal | None = None
    ) -> None:
        self.shard = shard
        self.journal = journal
        self.limits = limits or Limits()
        self.seconds = self.limits.seconds or SECONDS

    @abstractmethod
    def ask(self, job: Mapping[str, Plain], seconds: float, attempt: Attempt) -> list[Plain]:
        """The answers of some worker to a job that may take so long.

        Raises: Death, and another one will be asked next; UserError and Broken as the work does;
        CalledOff soon after the attempt was, and its worker is free for other work.
        """

    def call_off(self, attempt: Attempt) -> None:
        """Whoever is at it stops."""
        attempt.off.set()

    @abstractmethod
    def close(self) -> None:
        """Kills all workers; what they were doing is lost."""

    @abstractmethod
    def at_once(self, shards: int) -> int:
        """How many of so many shards to hand out at a time."""

    def run(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain | Fault]:
        """See `Executor`. Raises: UserError and Broken as the work does."""
        parts = shards(len(items), self.shard)
        if not parts:
            return []
        answers: dict[int, Plain | Fault] = {}
        most = self.at_once(len(parts))
        with ThreadPoolExecutor(most) as threads:

            def work(attempt: Attempt) -> list[Plain | Fault]:
                chosen = items[attempt.part.start : attempt.part.stop]
                shard = partial(self._shard, _Work(self, call, chosen, common, attempt))
                return recalled(self.journal, call, chosen, common, shard)

            try:
                for part, found in Attempts(threads, most, work, self.call_off).answered(parts):
                    answers |= zip(part, found, strict=True)
                    tick(len(answers) / len(items))
            except UserError:
                threads.shutdown(cancel_futures=True)
                raise
            except BaseException:
                self.close()  # else the threads would be waited for
                raise
        return [answers[number] for number in range(len(items))]

    def _shard(self, work: _Work) -> list[Plain | Fault]:
        """The answers of one shard, whatever its workers go through."""
        items = work.items
        found: dict[int, Plain | Fault] = {}
        for _ in range(_SEARCHES):
            rest = [number for number in range(len(items)) if number not in found]
            try:
                found |= zip(rest, work.tried(rest, _TRIES), strict=True)
                return [found[number] for number in range(len(items))]
            except Death:
                parts = work.halved(rest)
            found |= {at: each for at, each in parts.items() if isinstance(each, Fault)}
        # It dies as a whole and not in parts: for want of memory, say.
        found |= {at: each for at, each in parts.items() if at not in found}
        return [found[number] for number in range(len(items))]


@dataclass(frozen=True)
class _Work:
    """One shard's work: the call, all of its items, and who does it."""

    crew: Crew
    call: str
    items: Sequence[Plain]
    common: Mapping[str, Plain]
    attempt: Attempt

    def tried(self, numbers: Sequence[int], tries: int) -> list[Plain]:
        """Answers of these items together. Raises: the Death of the last worker that tried.

        What takes too long is not tried again, which would only take as long again. Raises
        NoWorkers if none lives until it is asked, and CalledOff.
        """
        if not numbers:
            return []
        items = [self.items[number] for number in numbers]
        job = {"call": self.call, "items": items, "common": self.common}
        killings, starts = _KILLINGS, _STARTS
        while not self.attempt.off.is_set():
            try:
                return self.crew.ask(job, self.crew.seconds * len(items), self.attempt)
            except Slow:
                raise
            except Stillborn as death:
                starts -= 1
                if not starts:
                    raise NoWorkers(
                        f"workers die while they load the task, the last because {death}"
                    ) from death
            except Killed:
                killings -= 1
                if not killings:
                    raise
            except Death:
                tries -= 1
                if not tries:
                    raise
        raise CalledOff

    def halved(self, numbers: Sequence[int]) -> dict[int, Plain | Fault]:
        """By item, its answer in some part of these, or that it breaks a worker alone."""
        middle = len(numbers) // 2
        return self._answered(numbers[:middle]) | self._answered(numbers[middle:])

    def _answered(self, numbers: Sequence[int]) -> dict[int, Plain | Fault]:
        alone = len(numbers) == 1
        try:
            answers = self.tried(numbers, _TRIES if alone else 1)
            return dict(zip(numbers, answers, strict=True))
        except Death as death:
            return {numbers[0]: Fault(str(death))} if alone else self.halved(numbers)
