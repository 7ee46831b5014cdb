"""The executor without processes: one shard after the other, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from evoloss.execution.executor import Fault, Plain, Tick, Workplace, shards
from evoloss.execution.journal import Journal, recalled


class InProcess:
    """shard: how many items are worked on together; None for all of them. journal: where their
    answers are kept until all are there, if anywhere."""

    def __init__(
        self, workplace: Workplace, shard: int | None = None, journal: Journal | None = None
    ) -> None:
        self.workplace = workplace
        self.shard = shard
        self.journal = journal

    def run(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain | Fault]:
        """See `Executor`; what an item raises is raised."""
        answers: list[Plain | Fault] = []
        for part in shards(len(items), self.shard):

            def within(share: float, part: range = part) -> None:
                tick((part.start + share * len(part)) / len(items))

            chosen = items[part.start : part.stop]
            work = partial(self.workplace.do, call, chosen, common, within)
            answers += recalled(self.journal, call, chosen, common, work)
        return answers

    def close(self) -> None:
        """Nothing was started."""
