"""Answers of a generation in work, in files, so that who resumes it need not ask for them again.

The store takes a generation whole or not at all. With a language model one takes hours, of which a
killed driver would lose all; with this it loses the shards that were being worked on.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evoloss.execution.executor import Fault, Plain
from evoloss.execution.wire import packed, unpacked

FOLDER = "unfinished"
"""Of a run, where its journal is."""
WORTH = 2.0
"""Seconds of work from which on answers are kept: what is done sooner is soon done again."""
_MOST = 4 << 30
"""Bytes that are kept at most: several hundred adapters of a small language model."""
_SPARED = 1 << 30
"""Bytes of the disk that are left to the store and to others."""
_DIGEST = hashlib.sha256().digest_size
_FORM = b"1"
"""Another one where calls or answers change, so that an earlier version's are not taken."""


class Journal:
    """What a workplace answered, by what it was asked: its answers depend on nothing else.

    folder: made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sizes = {each.name: each.stat().st_size for each in folder.glob("*")}
        self._there = set(sizes)
        self._bytes = sum(sizes.values())

    def through(
        self, call: str, items: Sequence[Plain], common: Mapping[str, Plain],
        work: Callable[[], list[Plain | Fault]],
    ) -> list[Plain | Fault]:  # fmt: skip
        """The answers to a call as they were kept, or else those of the work.

        Those with a Fault are not kept, nor is what is no plain data, or finds no room.
        """
        asked = [call, list(items), dict(common)]
        if self._there and (found := self._kept(asked)) is not None:
            return found
        begun = time.monotonic()
        answers = work()
        lasted = time.monotonic() - begun
        if lasted >= WORTH and not any(isinstance(each, Fault) for each in answers):
            # It is a service: the search does not end because of it.
            with contextlib.suppress(OSError, TypeError):
                self._keep(asked, answers)
        return answers

    def clear(self) -> None:
        """Forgets all: the store has what came of it."""
        if self._bytes:
            self._there.clear()
            self._bytes = 0
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kept(self, asked: Plain) -> list[Plain | Fault] | None:
        """None if there are none, or their file is damaged."""
        try:
            name = _name(asked)
            if name not in self._there:
                return None
            data = (self.folder / name).read_bytes()
        except (OSError, TypeError):
            return None
        digest, content = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            return None
        answers: list[Plain | Fault] = unpacked(_parts(content))
        return answers

    def _keep(self, asked: Plain, answers: list[Plain | Fault]) -> None:
        content = b"".join(len(each).to_bytes(8) + each for each in packed(answers))
        if self._bytes + len(content) > _MOST:
            return
        if shutil.disk_usage(self.folder.parent).free < len(content) + _SPARED:
            return
        self._bytes += len(content)
        self.folder.mkdir(exist_ok=True)
        file = self.folder / _name(asked)
        partial = file.with_suffix(f".{threading.get_ident()}")  # two may have been asked the same
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        partial.replace(file)


def recalled(
    journal: Journal | None, call: str, items: Sequence[Plain], common: Mapping[str, Plain],
    work: Callable[[], list[Plain | Fault]],
) -> list[Plain | Fault]:  # fmt: skip
    """`through` the journal, where there is one."""
    return work() if journal is None else journal.through(call, items, common, work)


def _name(asked: Plain) -> str:
    """Of the file of what was asked."""
    digest = hashlib.sha256(_FORM)
    for part in packed(asked):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _parts(content: bytes) -> list[bytes]:
    parts, begin = [], 0
    while begin < len(content):
        end = begin + 8 + int.from_bytes(content[begin : begin + 8])
        parts.append(content[begin + 8 : end])
        begin = end
    return parts
