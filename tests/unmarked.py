"""Runs of comparisons as versions left them that did not mark the evaluations they made."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from evoloss.store.database import FILE


def forget_marks(directory: Path) -> None:
    """Takes the marks off a run's evaluations."""
    with closing(sqlite3.connect(directory / FILE)) as connection, connection:
        for id, text in connection.execute("SELECT id, record FROM evaluations").fetchall():
            record = json.loads(text)
            record.pop("comparison", None)
            connection.execute(
                "UPDATE evaluations SET record = ? WHERE id = ?", (json.dumps(record), id)
            )
