"""The record of a run: what is written of a search and read of it again.

A generation is one transaction of the file, see `database`; what cannot be had again if the process
is killed, such as a reply that was paid for, is one of its own before.
"""

from __future__ import annotations

import importlib.metadata
import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.store import lock
from evoloss.store.database import FILE, Database, put, taken
from evoloss.store.entry import ENTRIES, Entry, from_columns
from evoloss.store.history import History
from evoloss.store.schema import COLUMNS, SUMMARIES, formula, from_row, to_row

_INSERT = f"INSERT INTO candidates ({COLUMNS}, formula) VALUES ({', '.join('?' * 17)})"


class Store:
    """A run on disk. Made by `create` or `open`; close it, or use it as a context manager."""

    def __init__(self, database: Database) -> None:
        self.directory = database.directory
        self._database = database

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        task: dict[str, Any] | None,
        settings: dict[str, Any],
        about: dict[str, Any],
    ) -> Store:
        """A new run, open for writing. Raises UserError where one exists already.

        task: how to load the task again, None if it lives only in memory; about: anything a
        reader may want to know. All three are plain JSON data.
        """
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        told = {**about, "created": stamp, "evoloss": _version()}
        return cls(Database.create(directory, {"task": task, "settings": settings, "about": told}))

    @staticmethod
    def check_free(directory: Path) -> None:
        """Raises UserError where a run exists already, before any work is done for another."""
        if (directory / FILE).is_file():
            raise taken(directory)

    @classmethod
    def open(cls, directory: Path, *, write: bool) -> Store:
        """An existing run. Raises UserError if it is none, damaged, or in use by another writer."""
        return cls(Database.open(directory, write=write))

    def close(self) -> None:
        """Frees the file and the writer's lock."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What is written

    def commit(
        self,
        generation: int,
        candidates: Sequence[Candidate],
        seconds: dict[str, float],
        records: Sequence[Mapping[str, Any]] = (),
        summaries: Sequence[Summary] = (),
    ) -> None:
        """Saves one finished generation, all of it or nothing, with what its proposer keeps.

        summaries: what the archive has found out about the candidates, so that whoever resumes the
        run need not.
        Raises UserError if it cannot be saved (a full disk); earlier generations stay saved.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO generations VALUES (?, ?)", (generation, json.dumps(seconds))
            )
            connection.executemany(
                _INSERT, [(*to_row(candidate), formula(candidate)) for candidate in candidates]
            )
            _put_records(connection, generation, records)
            _put_keys(connection, summaries)

    def save(self, generation: int, record: Mapping[str, Any]) -> None:
        """Saves a record of a generation in work, at once. Raises UserError as `commit` does."""
        with self._database.transaction() as connection:
            _put_records(connection, generation, [record])

    def add_summaries(self, summaries: Sequence[Summary]) -> None:
        """Keeps those of candidates that were saved without."""
        with self._database.transaction() as connection:
            _put_keys(connection, summaries)

    def finish(self, outcome: dict[str, Any]) -> None:
        """Marks the run as finished, with what came out of it."""
        with self._database.transaction() as connection:
            put(connection, "outcome", outcome)

    def extend(self, settings: dict[str, Any]) -> None:
        """Lets a search go on with other budgets: a finished run is unfinished again."""
        with self._database.transaction() as connection:
            put(connection, "settings", settings)
            connection.execute("DELETE FROM meta WHERE key = 'outcome'")

    def add_evaluation(self, record: dict[str, Any]) -> None:
        """Keeps the record of one evaluation on the test split."""
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO evaluations (record) VALUES (?)", (json.dumps(record),))

    # What is read

    @property
    def task(self) -> dict[str, Any] | None:
        """How to load the task again; None for one that lived only in memory."""
        return self._database.get("task")  # type: ignore[no-any-return]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the search."""
        return self._database.get("settings")  # type: ignore[no-any-return]

    @property
    def about(self) -> dict[str, Any]:
        """What `create` was told, with `created` (time, UTC) and `evoloss` (version)."""
        return self._database.get("about")  # type: ignore[no-any-return]

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What `finish` was given; None while the run is not finished."""
        return self._database.get("outcome")  # type: ignore[no-any-return]

    @property
    def generations(self) -> int:
        """How many generations are finished and saved."""
        [(count,)] = self._database.read("SELECT count(*) FROM generations")
        return int(count)

    @property
    def writer(self) -> int | None:
        """The id of the process that writes to the run now, if there is one."""
        return lock.holder(self.directory)

    @property
    def best_error(self) -> float | None:
        """The lowest error of a candidate that was trained to the full budget."""
        [(error,)] = self._database.read(
            "SELECT min(error) FROM candidates WHERE fate = ?", Fate.SCORED.value
        )
        return None if error is None else float(error)

    def candidates(self, generation: int | None = None) -> tuple[Candidate, ...]:
        """All candidates, or those of one generation, in the order of their ids."""
        if generation is None:
            rows = self._database.read(f"SELECT {COLUMNS} FROM candidates ORDER BY id")
        else:
            rows = self._database.read(
                f"SELECT {COLUMNS} FROM candidates WHERE generation = ? ORDER BY id", generation
            )
        return tuple(from_row(row) for row in rows)

    def history(self) -> History:
        """All candidates, each read when it is asked for, also after the store was closed."""
        [(count,)] = self._database.read("SELECT count(*) FROM candidates")
        return History(self._between, int(count))

    def summaries(self) -> list[Summary]:
        """The summaries that were saved, by id; none of a run of an earlier version."""
        if not self._has_keys():
            return []
        fates = {fate.value: fate for fate in Fate}
        return [
            Summary(id, generation, fates[fate], *rest)
            for id, generation, fate, *rest in self._database.read(SUMMARIES)
        ]

    def entries(self) -> tuple[Entry, ...]:
        """All candidates in the order of their ids, none of their losses parsed."""
        if not self._has_keys():
            return tuple(Entry.of(each) for each in self.history())
        return tuple(from_columns(row) for row in self._database.read(ENTRIES))

    def seconds(self) -> dict[str, float]:
        """Wall time by stage, over all generations."""
        total: dict[str, float] = {}
        for (stages,) in self._database.read("SELECT seconds FROM generations ORDER BY generation"):
            for stage, seconds in json.loads(stages).items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What proposers kept and saved, oldest first; all of it, or what is of a kind."""
        rows = self._database.read(
            "SELECT record FROM records "
            "WHERE ?1 IS NULL OR json_extract(record, '$.kind') = ?1 ORDER BY id", kind,
        )  # fmt: skip
        return [json.loads(text) for (text,) in rows]

    def unfinished(self) -> list[dict[str, Any]]:
        """The records that were saved of a generation that was not finished, oldest first."""
        rows = self._database.read(
            "SELECT record FROM records "
            "WHERE generation NOT IN (SELECT generation FROM generations) ORDER BY id"
        )
        return [json.loads(text) for (text,) in rows]

    def evaluations(self) -> list[dict[str, Any]]:
        """The records of `add_evaluation`, oldest first."""
        return [
            json.loads(text)
            for (text,) in self._database.read("SELECT record FROM evaluations ORDER BY id")
        ]

    # How

    def _has_keys(self) -> bool:
        """Whether all candidates have summaries, which earlier versions did not keep."""
        if not self._database.read("SELECT 1 FROM sqlite_master WHERE name = 'keys'"):
            return False
        [(lacking,)] = self._database.read(
            "SELECT EXISTS (SELECT id FROM candidates EXCEPT SELECT id FROM keys)"
        )
        return not lacking

    def _between(self, first: int, end: int) -> tuple[Candidate, ...]:
        if self._database.closed:
            with Store.open(self.directory, write=False) as store:
                return store._between(first, end)
        rows = self._database.read(
            f"SELECT {COLUMNS} FROM candidates WHERE id >= ? AND id < ? ORDER BY id", first, end
        )
        return tuple(from_row(row) for row in rows)


def _put_records(
    connection: sqlite3.Connection, generation: int, records: Sequence[Mapping[str, Any]]
) -> None:
    connection.executemany(
        "INSERT INTO records (generation, record) VALUES (?, ?)",
        [(generation, json.dumps(dict(record))) for record in records],
    )


def _put_keys(connection: sqlite3.Connection, summaries: Sequence[Summary]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)",
        [(each.id, each.form, each.complexity, each.untuned, each.tuned) for each in summaries],
    )


def _version() -> str:
    try:
        return importlib.metadata.version("evoloss")
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        return "unknown"
