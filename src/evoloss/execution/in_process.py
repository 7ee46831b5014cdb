"""The executor without processes: one shard after the other, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evoloss.execution.executor import Fault, Plain, Tick, Workplace, shards


class InProcess:
    """shard: how many items are worked on together; None for all of them."""

    def __init__(self, workplace: Workplace, shard: int | None = None) -> None:
        self.workplace = workplace
        self.shard = shard

    def run(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain], tick: Tick
    ) -> list[Plain | Fault]:
        """See `Executor`; what an item raises is raised."""
        answers: list[Plain | Fault] = []
        for part in shards(len(items), self.shard):

            def within(share: float, part: range = part) -> None:
                tick((part.start + share * len(part)) / len(items))

            chosen = items[part.start : part.stop]
            answers += self.workplace.do(call, chosen, common, within)
        return answers

    def close(self) -> None:
        """Nothing was started."""
