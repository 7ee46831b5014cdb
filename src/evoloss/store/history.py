"""The candidates of a stored run as a sequence that reads them when they are asked for.

A search of a hundred thousand candidates needs few of them again: the last generation, the best,
and the originals of duplicates. The others stay on disk, where they take no memory and no time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from evoloss.discovery.candidate import Candidate

_KEPT = 1024
_CHUNK = 1000

Read = Callable[[int, int], tuple[Candidate, ...]]
"""Reads the candidates from one id up to another."""


class History(Sequence[Candidate]):
    """Candidates in the order of their ids, which are their places."""

    def __init__(self, read: Read, count: int) -> None:
        self._read = read
        self._count = count
        self._cache: OrderedDict[int, Candidate] = OrderedDict()

    def extend(self, candidates: Sequence[Candidate]) -> None:
        """Takes in a generation that has been saved."""
        for each in candidates:
            self._keep(each)
        self._count += len(candidates)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        if isinstance(index, slice):
            places = range(self._count)[index]
            if places.step != 1 or len(places) <= _KEPT:
                return tuple(self[place] for place in places)
            return self._read(places.start, places.stop)
        place = range(self._count)[index]  # refuses what is out of range
        found = self._cache.get(place)
        if found is None:
            [found] = self._read(place, place + 1)
        self._keep(found)
        return found

    def __iter__(self) -> Iterator[Candidate]:
        for start in range(0, self._count, _CHUNK):
            yield from self._read(start, min(start + _CHUNK, self._count))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def _keep(self, candidate: Candidate) -> None:
        self._cache[candidate.id] = candidate
        self._cache.move_to_end(candidate.id)
        if len(self._cache) > _KEPT:
            self._cache.popitem(last=False)
