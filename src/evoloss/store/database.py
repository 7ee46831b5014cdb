"""The file of a run: opened, locked, checked, and written in transactions.

A rollback journal, not a write-ahead log: there is one commit a generation, and one a reply of a
language model, so nothing is gained by a faster one, and after each commit `run.db` alone is the
whole run and may be copied. A process killed in the middle of a commit leaves a journal behind,
which the next one to open the file, reader or writer, rolls back.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evoloss.errors import UserError
from evoloss.store import lock
from evoloss.store.schema import APPLICATION, FORMAT, TABLES

FILE = "run.db"
_PATIENCE = 30.0  # seconds to wait for another process's read or commit


class Database:
    """The open file of a run. Made by `create` or `open`."""

    def __init__(self, directory: Path, mode: str) -> None:
        """mode: `rw`, or `rwc` to make the file."""
        self.directory = directory
        self.file = directory / FILE
        self.connection = _connect(self.file, mode)
        self.closed = False
        self._lock: int | None = None

    @classmethod
    def create(cls, directory: Path, about: Mapping[str, object]) -> Database:
        """A new file, open for writing. about: what is kept by name from the start, plain data.

        Raises: UserError where there is a run already.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make run directory '{directory}' ({error.strerror}): choose another --out"
            ) from error
        database = cls(directory, mode="rwc")
        try:
            database._take_lock()
            database._make_tables(about)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open(cls, directory: Path, *, write: bool) -> Database:
        """The file of a run. Raises: UserError if it is none, damaged, or has another writer."""
        if not (directory / FILE).is_file():
            raise UserError(
                f"'{directory}' is not a run: it has no {FILE} (`evoloss runs` lists the runs)"
            )
        # Readers too: only with the right to write can they roll back a killed process's journal.
        database = cls(directory, mode="rw")
        try:
            if write:
                database._take_lock()
            database._verify()
            if write:
                database._complete()
            else:
                database.connection.execute("PRAGMA query_only = ON")
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Frees the file and the writer's lock."""
        self.connection.close()
        self.closed = True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done within it is saved at its end, or nothing. Raises: UserError."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        finally:
            if self.connection.in_transaction:  # SQLite itself rolls back when the disk is full
                self.connection.execute("ROLLBACK")

    def read(self, query: str, *values: object) -> list[Any]:
        """The rows of a query. Raises: UserError for a file that cannot be read."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def get(self, name: str) -> Any:
        """What is kept by a name; None if nothing is."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def _take_lock(self) -> None:
        try:
            self._lock = lock.acquire(self.directory)
        except OSError as error:
            raise UserError(
                f"cannot write to run directory '{self.directory}': {error.strerror}"
            ) from error

    def _make_tables(self, about: Mapping[str, object]) -> None:
        with self.transaction() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise taken(self.directory)
            # Not `executescript`, which would commit on its own.
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            for name, value in about.items():
                put(connection, name, value)

    def _verify(self) -> None:
        [(application,)] = self.read("PRAGMA application_id")
        [(version,)] = self.read("PRAGMA user_version")
        if application != APPLICATION:
            empty = self.file.stat().st_size == 0
            raise UserError(
                f"'{self.file}' is not a run of evoloss: "
                + ("it is empty" if empty else "it is some other database")
            )
        if version != FORMAT:
            raise UserError(
                f"run '{self.directory}' has format {version}, this evoloss reads format {FORMAT}: "
                "use the version of evoloss that made it, on a copy of the run"
            )
        [(pages,)], [(page_size,)] = self.read("PRAGMA page_count"), self.read("PRAGMA page_size")
        if self.file.stat().st_size < pages * page_size:
            raise self._failure("its end is missing")
        [(finding,)] = self.read("PRAGMA quick_check(1)")
        if finding != "ok":
            raise self._failure(finding)

    def _complete(self) -> None:
        """Adds the table that runs of earlier versions lack."""
        [table] = [each for each in TABLES.split(";\n") if "TABLE keys" in each]
        with self.transaction() as connection:
            connection.execute(table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    def _failure(self, cause: sqlite3.DatabaseError | str) -> UserError:
        """What to tell about an error of SQLite, by its primary result code."""
        told = " ".join(str(cause).split())  # a finding of SQLite may have several lines
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return UserError(
                f"'{self.file}' is damaged or not a run of evoloss ({told}): "
                "restore it from a copy, or search anew with another --out"
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return UserError(
                f"cannot save to '{self.file}' ({told}); what was saved before is "
                f"safe: make room, then `evoloss resume {self.directory}`"
            )
        return UserError(f"cannot use '{self.file}': {told}")


def taken(directory: Path) -> UserError:
    """The error for a directory that has a run where a new one is to be."""
    return UserError(
        f"'{directory}' holds a run already: continue it with `evoloss resume {directory}`, "
        "or choose another --out"
    )


def put(connection: sqlite3.Connection, name: str, value: object) -> None:
    """Keeps plain data by a name, in a transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    """A connection that starts no transaction of its own."""
    try:
        return sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
        )
    except sqlite3.OperationalError as error:
        raise UserError(f"cannot open '{file}': {error}") from error
