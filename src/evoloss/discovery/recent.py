"""What was found out of objects of late, by identity: comparing and hashing trees costs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_KEPT = 10_000


class Recent(Generic[T]):
    """Remembers values by the objects that they follow from, which must not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[tuple[object, ...], T]] = {}

    def of(self, *objects: object, find: Callable[[], T]) -> T:
        """The value that is known of these very objects, or what `find` returns."""
        key = tuple(map(id, objects))
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self.forget()
            # The objects are kept too: while they live, nothing else has their identity.
            self._known[key] = objects, find()
        return self._known[key][1]

    def forget(self) -> None:
        """Lets go of the objects."""
        self._known.clear()
