"""Rows of JSON lines, JSON arrays and Parquet files, each with its place in the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evoloss.errors import UserError

Raw = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".parquet")


def read_rows(path: Path) -> list[tuple[int, Raw]]:
    """The rows with their numbers: lines of JSON lines, places in other files; from 1.

    Raises: UserError if the file is missing, of another format, or broken, with the line.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"'{path}' {what}: name a file ending in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        return list(enumerate(_parquet(path), start=1))
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"'{path}' is of an unknown format: the formats are {', '.join(SUFFIXES)}")
    text = _text(path)
    if text.lstrip().startswith("["):
        return _checked(path, "item", list(enumerate(_parsed(path, text), start=1)))
    # Not splitlines(): it also cuts at characters that JSON strings may hold as they are.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _checked(path, "line", [(number, _parsed(path, line, number)) for number, line in lines])


def find(directory: Path, names: Sequence[str]) -> list[Path]:
    """The file, or the shards, of the first of these names that exists there; else nothing.

    A name may hold folders and stands without its suffix. Data sets of several configurations are
    published with a folder for each, or with all of them in the folder `data`.
    """
    for name in names:
        for suffix in SUFFIXES:
            if (path := directory / f"{name}{suffix}").is_file():
                return [path]
        for start in (name, f"{name}/train", f"data/{name}"):
            if shards := sorted(directory.glob(f"{start}-*-of-*.parquet")):
                return shards
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error


def _parsed(path: Path, text: str, number: int | None = None) -> Any:
    """number: of the line, if the text is a line of the file and not all of it."""
    where = f"'{path}'" if number is None else f"'{path}' line {number}"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = error.lineno if number is None else number
        raise UserError(
            f"'{path}' line {line} is not JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply") from error
    except ValueError as error:  # Python's limit, which is on whole numbers alone
        raise UserError(
            f"{where} has a whole number of more than {sys.get_int_max_str_digits()} digits: "
            "put it in quotation marks, or leave it out"
        ) from error


def _parquet(path: Path) -> list[Raw]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[Raw] = parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"'{path}' cannot be read as Parquet: {reason}") from error
    return rows


def _checked(path: Path, unit: str, rows: list[tuple[int, Any]]) -> list[tuple[int, Raw]]:
    for number, row in rows:
        if not isinstance(row, dict):
            raise UserError(
                f"'{path}' {unit} {number} is a {type(row).__name__}, not an object with keys"
            )
    return rows
