"""What is to be unlearned: a model, its data, and a model that never saw what is to go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evoloss.errors import UserError
from evoloss.unlearn.data.benchmarks import load as load_benchmark
from evoloss.unlearn.data.divide import evenly
from evoloss.unlearn.data.example import DataSet, Example, UnlearningData
from evoloss.unlearn.data.files import SUFFIXES
from evoloss.unlearn.data.sets import from_files
from evoloss.wording import counted

KIND = "unlearning"
"""What a store's description of its task has under `kind`."""
_PATHS = ("model", "forget", "retain", "holdout", "data_dir", "retain_model")
_FILES = (*SUFFIXES, ".gguf")


@dataclass(frozen=True)
class Problem:
    """model, retain_model: folders, GGUF files or names on the hub; the second is optional.

    source: how to load the problem again from any directory, as plain data.
    """

    data: UnlearningData
    model: str
    retain_model: str | None
    source: dict[str, Any] | None


def load_problem(
    model: str,
    *,
    forget: str | None = None,
    retain: str | None = None,
    holdout: str | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    authors: dict[str, int] | None = None,
    forget_rows: int | None = None,
    retain_rows: int | None = None,
    probes: bool = True,
    retain_model: str | None = None,
    kind: str = KIND,
) -> Problem:
    """A problem of files (`forget`, `retain`, `holdout`), of a benchmark, or of the demonstration.

    data: such as `tofu:forget05`, read from `data_dir`. authors: what `fiction` takes.
    forget_rows, retain_rows: only so many rows of these sets, evenly spaced.
    probes: whether the sets are used that a benchmark has for evaluation alone.
    Raises: UserError for whatever is wrong with the files.
    """
    given: dict[str, Any] = {
        "kind": kind, "model": model, "forget": forget, "retain": retain, "holdout": holdout,
        "data": data, "data_dir": data_dir, "authors": authors, "forget_rows": forget_rows,
        "retain_rows": retain_rows, "probes": probes, "retain_model": retain_model,
    }  # fmt: skip
    told = {name: value for name, value in given.items() if value is not None}
    source = told | {name: _place(told[name]) for name in _PATHS if name in told}
    whole = _data(forget, retain, holdout, data, data_dir, authors)
    part = replace(
        whole,
        forget=_some(whole.forget, forget_rows),
        retain=None if whole.retain is None else _some(whole.retain, retain_rows),
        probes=whole.probes if probes else {},
    )
    return Problem(part, source["model"], source.get("retain_model"), source)


def _place(name: str) -> str:
    """The full path of a folder or file that is there; any other name, as on the hub, as it is.

    Not of a file of another kind, which may be called like a model on the hub.
    """
    path = Path(name)
    is_file = path.suffix.lower() in _FILES and path.is_file()
    return str(path.absolute()) if name and (path.is_dir() or is_file) else name


def _some(rows: DataSet[Example], count: int | None) -> DataSet[Example]:
    """So many of the rows, evenly spaced."""
    if count is None or count >= len(rows):
        return rows
    if count < 2:
        raise UserError(
            f"{counted(count, 'row')} of '{rows.name}': to keep some for the test it takes 2"
        )
    note = f"'{rows.name}': {count} of {len(rows)} rows, evenly spaced"
    return replace(rows, rows=evenly(rows.rows, count), notes=(*rows.notes, note))


def _data(
    forget: str | None, retain: str | None, holdout: str | None, data: str | None,
    data_dir: str | None, authors: dict[str, int] | None,
) -> UnlearningData:  # fmt: skip
    if authors is not None:
        from evoloss.unlearn.fiction import fiction

        return fiction(**authors)
    if data is not None:
        if forget or retain or holdout:
            raise UserError("--data brings its own sets: leave --forget, --retain, --holdout out")
        if data_dir is None:
            raise UserError(f"'{data}' needs --data-dir, the folder that its files are in")
        return load_benchmark(data, Path(data_dir))
    if forget is None:
        raise UserError("nothing to forget: give --forget FILE, or --data such as tofu:forget05")
    paths = (None if each is None else Path(each) for each in (retain, holdout))
    return from_files(Path(forget), *paths)
