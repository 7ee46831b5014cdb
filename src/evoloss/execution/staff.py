"""Who does the work of a search: this process, worker processes beside it, or a Ray cluster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from evoloss.errors import UserError
from evoloss.execution.crew import SECONDS, Crew, Limits
from evoloss.execution.executor import Executor, Recipe, Workplace
from evoloss.execution.in_process import InProcess
from evoloss.execution.journal import Journal
from evoloss.execution.pool import Pool
from evoloss.wording import counted

USUAL: Literal["usual"] = "usual"
"""As many workers as suit the work and the machine, which whoever asks need not know."""
Workers = int | Literal["usual"] | None


@dataclass(frozen=True)
class Staff:
    """workers: how many processes of this machine; ray: the address of a cluster; neither: here.

    workers may be USUAL, which is none before it is settled. limits: of either.
    gpus_per_shard: what Ray sets aside for each shard; 0.5 lets two share one.
    Raises: UserError for what excludes each other, or asks for nothing.
    """

    workers: Workers = None
    ray: str | None = None
    limits: Limits | None = None
    gpus_per_shard: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.ray is not None:
            raise UserError(
                "workers and ray exclude each other: Ray decides on its processes itself"
            )
        if isinstance(self.workers, int) and self.workers < 1:
            raise UserError(f"{self.workers} workers: give at least 1, or leave them out")
        gpus = self.gpus_per_shard
        if gpus and self.ray is None:
            asked = counted(gpus, "GPU per shard is asked", "GPUs per shard are asked")
            raise UserError(f"{asked} of Ray: add --ray, or leave it out")
        if not (0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))):
            asked = counted(gpus, "GPU per shard", "GPUs per shard")
            raise UserError(f"{asked}: give a part of one, or a whole number")

    @property
    def elsewhere(self) -> bool:
        """Whether other processes than this one do the work."""
        return isinstance(self.workers, int) or self.ray is not None

    def settled(self, usual: int | None) -> Staff:
        """With so many workers where there are to be as many as usual, None for none.

        Who did not ask for workers did not ask for their limit of time.
        """
        if self.workers != USUAL:
            return self
        return replace(self, workers=usual, limits=self.limits or Limits(seconds=math.inf))

    def check(self, source: object, name: str, advice: str) -> None:
        """Raises: UserError if others are to do the work, but cannot load what has no source."""
        if self.elsewhere and source is None:
            raise UserError(
                f"{name} lives in memory, where worker processes cannot get it: {advice}, "
                "or leave workers out"
            )

    @contextmanager
    def at_work(
        self, here: Callable[[], Workplace], recipe: Callable[[], Recipe], shard: int | None,
        seconds: float = SECONDS, journal: Journal | None = None,
    ) -> Iterator[Executor]:  # fmt: skip
        """The executor, closed at the end. here: the workplace in this process; recipe: of others.

        shard: how many items are worked on together; None for all of them. seconds: what one may
        take where the limits do not say it. journal: where answers are kept, None for nowhere.
        """
        if not self.elsewhere:
            yield InProcess(here(), shard, journal)
            return
        crew = self._crew(recipe(), shard, seconds, journal)
        try:
            yield crew
        finally:
            crew.close()

    def _crew(
        self, recipe: Recipe, shard: int | None, seconds: float, journal: Journal | None
    ) -> Crew:
        limits = self.limits or Limits()
        count = self.workers if isinstance(self.workers, int) else 1
        limits = replace(limits, seconds=limits.seconds or seconds)
        if self.ray is None:
            return Pool(recipe, count, shard, limits, journal)
        from evoloss.execution.ray_cluster import RayCluster

        return RayCluster(recipe, self.ray, shard, limits, self.gpus_per_shard, journal)
