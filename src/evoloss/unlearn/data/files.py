"""Rows of JSON lines, JSON arrays and Parquet files, each with its place in the file."""

from __future__ import annotations

import json
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
        return _checked(path, "item", list(enumerate(_array(path, text), start=1)))
    # Not splitlines(): it also cuts at characters that JSON strings may hold as they are.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _checked(path, "line", [(number, _line(path, number, line)) for number, line in lines])


def find(directory: Path, names: Sequence[str]) -> list[Path]:
    """The file, or the shards, of the first of these names that exists there; else nothing.

    A name may hold folders and stands without its suffix.
    """
    for name in names:
        for suffix in SUFFIXES:
            if (path := directory / f"{name}{suffix}").is_file():
                return [path]
        if shards := sorted(directory.glob(f"{name}-*-of-*.parquet")):
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


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' line {number} is not JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise UserError(f"'{path}' line {number} is nested too deeply") from error


def _array(path: Path, text: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' line {error.lineno} is not JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise UserError(f"'{path}' is nested too deeply") from error


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
