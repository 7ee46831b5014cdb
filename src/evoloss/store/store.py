"""The record of a run: one SQLite file in which a generation is one transaction.

A rollback journal, not a write-ahead log: there is one commit a generation, so nothing is gained
by a faster one, and after each commit `run.db` alone is the whole run and may be copied. A process
killed in the middle of a commit leaves a journal behind, which the next one to open the file,
reader or writer, rolls back.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.errors import UserError
from evoloss.store import lock
from evoloss.store.entry import ENTRIES, Entry, from_columns
from evoloss.store.history import History
from evoloss.store.schema import (
    APPLICATION,
    COLUMNS,
    FORMAT,
    SUMMARIES,
    TABLES,
    formula,
    from_row,
    to_row,
)

FILE = "run.db"
_PATIENCE = 30.0  # seconds to wait for another process's read or commit
_INSERT = f"INSERT INTO candidates ({COLUMNS}, formula) VALUES ({', '.join('?' * 17)})"


class Store:
    """A run on disk. Made by `create` or `open`; close it, or use it as a context manager."""

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self.directory = directory
        self._connection = connection
        self._lock: int | None = None
        self._closed = False

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
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make run directory '{directory}' ({error.strerror}): choose another --out"
            ) from error
        store = cls(directory, _connect(directory, mode="rwc"))
        try:
            store._take_lock()
            store._initialise(task, settings, about)
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def check_free(directory: Path) -> None:
        """Raises UserError where a run exists already, before any work is done for another."""
        if (directory / FILE).is_file():
            raise _taken(directory)

    @classmethod
    def open(cls, directory: Path, *, write: bool) -> Store:
        """An existing run. Raises UserError if it is none, damaged, or in use by another writer."""
        if not (directory / FILE).is_file():
            raise UserError(
                f"'{directory}' is not a run: it has no {FILE} (`evoloss runs` lists the runs)"
            )
        # Readers too: only with the right to write can they roll back a killed process's journal.
        store = cls(directory, _connect(directory, mode="rw"))
        try:
            if write:
                store._take_lock()
            store._verify()
            if write:
                store._complete()
            else:
                store._connection.execute("PRAGMA query_only = ON")
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Frees the file and the writer's lock."""
        self._connection.close()
        self._closed = True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO generations VALUES (?, ?)", (generation, json.dumps(seconds))
            )
            connection.executemany(
                _INSERT, [(*to_row(candidate), formula(candidate)) for candidate in candidates]
            )
            connection.executemany(
                "INSERT INTO records (generation, record) VALUES (?, ?)",
                [(generation, json.dumps(dict(record))) for record in records],
            )
            _put_keys(connection, summaries)

    def add_summaries(self, summaries: Sequence[Summary]) -> None:
        """Keeps those of candidates that were saved without."""
        with self._transaction() as connection:
            _put_keys(connection, summaries)

    def finish(self, outcome: dict[str, Any]) -> None:
        """Marks the run as finished, with what came out of it."""
        with self._transaction() as connection:
            _put(connection, "outcome", outcome)

    def extend(self, settings: dict[str, Any]) -> None:
        """Lets a search go on with other budgets: a finished run is unfinished again."""
        with self._transaction() as connection:
            _put(connection, "settings", settings)
            connection.execute("DELETE FROM meta WHERE key = 'outcome'")

    def add_evaluation(self, record: dict[str, Any]) -> None:
        """Keeps the record of one evaluation on the test split."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO evaluations (record) VALUES (?)", (json.dumps(record),))

    # What is read

    @property
    def task(self) -> dict[str, Any] | None:
        """How to load the task again; None for one that lived only in memory."""
        return self._get("task")  # type: ignore[no-any-return]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the search."""
        return self._get("settings")  # type: ignore[no-any-return]

    @property
    def about(self) -> dict[str, Any]:
        """What `create` was told, with `created` (time, UTC) and `evoloss` (version)."""
        return self._get("about")  # type: ignore[no-any-return]

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What `finish` was given; None while the run is not finished."""
        return self._get("outcome")  # type: ignore[no-any-return]

    @property
    def generations(self) -> int:
        """How many generations are finished and saved."""
        [(count,)] = self._read("SELECT count(*) FROM generations")
        return int(count)

    @property
    def writer(self) -> int | None:
        """The id of the process that writes to the run now, if there is one."""
        return lock.holder(self.directory)

    @property
    def best_error(self) -> float | None:
        """The lowest error of a candidate that was trained to the full budget."""
        [(error,)] = self._read(
            "SELECT min(error) FROM candidates WHERE fate = ?", Fate.SCORED.value
        )
        return None if error is None else float(error)

    def candidates(self, generation: int | None = None) -> tuple[Candidate, ...]:
        """All candidates, or those of one generation, in the order of their ids."""
        if generation is None:
            rows = self._read(f"SELECT {COLUMNS} FROM candidates ORDER BY id")
        else:
            rows = self._read(
                f"SELECT {COLUMNS} FROM candidates WHERE generation = ? ORDER BY id", generation
            )
        return tuple(from_row(row) for row in rows)

    def history(self) -> History:
        """All candidates, each read when it is asked for, also after the store was closed."""
        [(count,)] = self._read("SELECT count(*) FROM candidates")
        return History(self._between, int(count))

    def summaries(self) -> list[Summary]:
        """The summaries that were saved, by id; none of a run of an earlier version."""
        if not self._has_keys():
            return []
        fates = {fate.value: fate for fate in Fate}
        return [
            Summary(id, generation, fates[fate], *rest)
            for id, generation, fate, *rest in self._read(SUMMARIES)
        ]

    def entries(self) -> tuple[Entry, ...]:
        """All candidates in the order of their ids, none of their losses parsed."""
        if not self._has_keys():
            return tuple(Entry.of(each) for each in self.history())
        return tuple(from_columns(row) for row in self._read(ENTRIES))

    def seconds(self) -> dict[str, float]:
        """Wall time by stage, over all generations."""
        total: dict[str, float] = {}
        for (stages,) in self._read("SELECT seconds FROM generations ORDER BY generation"):
            for stage, seconds in json.loads(stages).items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What proposers kept, oldest first; all of it, or what is of a kind."""
        rows = self._read(
            "SELECT record FROM records "
            "WHERE ?1 IS NULL OR json_extract(record, '$.kind') = ?1 ORDER BY id", kind,
        )  # fmt: skip
        return [json.loads(text) for (text,) in rows]

    def evaluations(self) -> list[dict[str, Any]]:
        """The records of `add_evaluation`, oldest first."""
        return [
            json.loads(text) for (text,) in self._read("SELECT record FROM evaluations ORDER BY id")
        ]

    # How

    def _has_keys(self) -> bool:
        """Whether all candidates have summaries, which earlier versions did not keep."""
        if not self._read("SELECT 1 FROM sqlite_master WHERE name = 'keys'"):
            return False
        [(lacking,)] = self._read(
            "SELECT EXISTS (SELECT id FROM candidates EXCEPT SELECT id FROM keys)"
        )
        return not lacking

    def _between(self, first: int, end: int) -> tuple[Candidate, ...]:
        if self._closed:
            with Store.open(self.directory, write=False) as store:
                return store._between(first, end)
        rows = self._read(
            f"SELECT {COLUMNS} FROM candidates WHERE id >= ? AND id < ? ORDER BY id", first, end
        )
        return tuple(from_row(row) for row in rows)

    def _take_lock(self) -> None:
        try:
            self._lock = lock.acquire(self.directory)
        except OSError as error:
            raise UserError(
                f"cannot write to run directory '{self.directory}': {error.strerror}"
            ) from error

    def _initialise(
        self, task: dict[str, Any] | None, settings: dict[str, Any], about: dict[str, Any]
    ) -> None:
        with self._transaction() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise _taken(self.directory)
            # Not `executescript`, which would commit on its own.
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            stamp = datetime.now(UTC).isoformat(timespec="seconds")
            _put(connection, "task", task)
            _put(connection, "settings", settings)
            _put(connection, "about", {**about, "created": stamp, "evoloss": _version()})

    def _verify(self) -> None:
        [(application,)] = self._read("PRAGMA application_id")
        [(version,)] = self._read("PRAGMA user_version")
        if application != APPLICATION:
            empty = (self.directory / FILE).stat().st_size == 0
            raise UserError(
                f"'{self.directory / FILE}' is not a run of evoloss: "
                + ("it is empty" if empty else "it is some other database")
            )
        if version != FORMAT:
            raise UserError(
                f"run '{self.directory}' has format {version}, this evoloss reads format {FORMAT}: "
                "use the version of evoloss that made it, on a copy of the run"
            )
        [(pages,)], [(page_size,)] = self._read("PRAGMA page_count"), self._read("PRAGMA page_size")
        if (self.directory / FILE).stat().st_size < pages * page_size:
            raise self._failure("its end is missing")
        [(finding,)] = self._read("PRAGMA quick_check(1)")
        if finding != "ok":
            raise self._failure(finding)

    def _complete(self) -> None:
        """Adds the table that runs of earlier versions lack."""
        [table] = [each for each in TABLES.split(";\n") if "TABLE keys" in each]
        with self._transaction() as connection:
            connection.execute(table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        finally:
            if self._connection.in_transaction:  # SQLite itself rolls back when the disk is full
                self._connection.execute("ROLLBACK")

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def _get(self, key: str) -> Any:
        rows = self._read("SELECT value FROM meta WHERE key = ?", key)
        return json.loads(rows[0][0]) if rows else None

    def _failure(self, cause: sqlite3.DatabaseError | str) -> UserError:
        """What to tell about an error of SQLite, by its primary result code."""
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return UserError(
                f"'{self.directory / FILE}' is damaged or not a run of evoloss ({cause}): "
                "restore it from a copy, or search anew with another --out"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return UserError(
                f"cannot save to '{self.directory / FILE}' ({cause}); what was saved before is "
                f"safe: make room, then `evoloss resume {self.directory}`"
            )
        return UserError(f"cannot use '{self.directory / FILE}': {cause}")


def _taken(directory: Path) -> UserError:
    return UserError(
        f"'{directory}' holds a run already: continue it with `evoloss resume {directory}`, "
        "or choose another --out"
    )


def _connect(directory: Path, mode: str) -> sqlite3.Connection:
    """A connection that starts no transaction of its own. mode: `rw`, or `rwc` to create."""
    try:
        return sqlite3.connect(
            f"{(directory / FILE).absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
        )
    except sqlite3.OperationalError as error:
        raise UserError(f"cannot open '{directory / FILE}': {error}") from error


def _put(connection: sqlite3.Connection, key: str, value: object) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


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
