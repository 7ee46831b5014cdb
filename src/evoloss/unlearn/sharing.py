"""How a machine is shared among the adapters of a search.

Processors are shared by a rule and not by a trial: numbers depend, in their last bits, on which
adapters are in one batch and on how many threads torch adds up with, so that one seed has one
history only if both follow from the model, the settings and the machine alone, and not from who
does the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from evoloss.execution.executor import shards
from evoloss.unlearn.footprint import Footprint
from evoloss.unlearn.settings import UnlearnSettings

SHARD = 2
"""Adapters that one process takes at a time: few enough that a race of 8 keeps two workers busy."""
MOST_TOGETHER = 16
SMALL = 1 << 25
"""Bytes of weights up to which a process has one thread: small tensors gain little by more."""
SHARE = 0.9
"""Of the machine's memory; the rest is for other programs."""


@dataclass(frozen=True)
class Sharing:
    """together: adapters that train side by side, on so many of torch's threads.

    trained, measured: rows that go through the model at once for each of them, of a minibatch, the
    loss being that of all its rows, and where nothing is learnt; None: as many as are wanted.
    workers: processes that suit this machine where nobody says how many; None: this one alone.
    """

    together: int
    threads: int
    trained: int | None = None
    measured: int | None = None
    workers: int | None = None

    @classmethod
    def of(cls, settings: UnlearnSettings) -> Sharing:
        """As the settings say, before anything is known of the model. A shard is one batch on one
        thread."""
        if settings.shard is None:
            return cls(settings.together or MOST_TOGETHER, torch.get_num_threads())
        return cls(settings.together or settings.shard, 1)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, torch uses so many threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def on_processors(
    footprint: Footprint, settings: UnlearnSettings, cores: int, memory: float
) -> Sharing:
    """As many processes as there are cores, shards of a generation, and room for.

    memory: bytes of the machine's. A larger model's processes share all cores among them.
    """
    shard = settings.shard or SHARD
    wanted = min(settings.together or shard, shard)
    room = SHARE * memory - footprint.process  # of this process, which has the model too
    each = footprint.process + wanted * footprint.adapter
    workers = min(cores, len(shards(settings.population, shard)), max(0, int(room // each)))
    threads = 1 if footprint.weights <= SMALL else max(1, cores // max(1, workers))
    if workers > 1:
        return Sharing(wanted, threads, workers=workers)
    return bounded(Sharing(wanted, threads), footprint, settings, room, wanted)


def bounded(
    sharing: Sharing, footprint: Footprint, settings: UnlearnSettings, room: float, most: int
) -> Sharing:
    """With so many adapters at most, no more than there is room for, if need be of fewer rows.

    It is an estimate: who says how many are to be side by side is believed. room: in bytes.
    """
    if settings.together is not None:
        return sharing
    together, rows = footprint.fitting(room, most)
    return replace(sharing, together=together, trained=rows)
