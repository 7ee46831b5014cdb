"""Tasks from a user's own file: a CSV or Parquet table with a target column, or .npz arrays.

Text columns with few distinct values become one-hot columns; others are refused rather than
dropped, for a stray word in a column of numbers makes it text, and that should not pass unseen.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.compose import compose
from evoloss.tasks.options import Options
from evoloss.tasks.plugin import describe, did_you_mean
from evoloss.tasks.splits import (
    LEAST_ROWS,
    Array,
    Parts,
    Rows,
    as_splits,
    completed,
    standardise,
    three_parts,
)
from evoloss.tasks.targets import Target, read_target, usual_kind
from evoloss.tasks.task import Task
from evoloss.wording import counted

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 20
_SHOWN_ROWS = 3


def load_file(path: Path, options: Options) -> Task:
    """The task of a .csv, .parquet or .npz file. Raises UserError for whatever is wrong with it."""
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"no file '{path}'{did_you_mean(path.name, near)}")
    if options.data_dir is not None:
        raise UserError(f"task '{path}' is a file itself: leave --data-dir out")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _from_arrays(path, options)
    if suffix == ".csv":
        return _from_table(path, _read_csv(path), options)
    if suffix == ".parquet":
        return _from_table(path, _read_parquet(path), options)
    raise UserError(f"'{path}' is of an unknown format: the formats are .csv, .parquet and .npz")


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path, skipinitialspace=True, low_memory=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"'{path}' cannot be read as CSV: {describe(error)}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # so are pyarrow's
        raise UserError(f"'{path}' cannot be read as Parquet: {describe(error)}") from error


def _from_table(path: Path, frame: pd.DataFrame, options: Options) -> Task:
    frame = frame.rename(columns=str)
    column = options.target
    if column is None:
        shown = ", ".join(f"'{name}'" for name in frame.columns[:20])
        raise UserError(f"say which column of '{path}' is the target with --target: {shown}")
    if column not in frame.columns:
        hint = did_you_mean(column, frame.columns) or f": it has {', '.join(frame.columns[:20])}"
        raise UserError(f"'{path}' has no column '{column}'{hint}")
    if frame.shape[1] < 2:
        raise UserError(f"'{path}' has no columns besides the target '{column}' to predict from")
    _check_row_count(path, len(frame), 0)
    kept, notes = _without_missing(path, frame, column, options.drop_missing)
    values = np.asarray(kept[column].to_numpy())
    kind = options.kind or usual_kind(values)
    target = read_target(values, kind, f"target column '{column}'")
    x, encoded = _features(kept.drop(columns=column))
    rows = Rows(x, target.y, target.class_names)
    notes += [_kind_note(target, f"target '{column}'", options), *encoded]
    return _task(path, three_parts(rows, options.seed, f"'{path}'"), target, options, notes)


def _without_missing(
    path: Path, frame: pd.DataFrame, target: str, drop: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The rows without a missing or infinite value, the target's first in what is complained of."""
    columns = [target, *(name for name in frame.columns if name != target)]
    bad = np.zeros(len(frame), dtype=bool)
    for name in columns:
        missing = np.asarray(frame[name].isna(), dtype=bool)
        numbers = _numbers(frame[name])
        infinite = np.zeros_like(missing) if numbers is None else np.isinf(numbers)
        here = missing | infinite
        if here.any() and not drop:
            faults = {"missing": missing.any(), "infinite": infinite.any()}
            fault = " or ".join(fault for fault, occurs in faults.items() if occurs)
            role = "target column" if name == target else "column"
            raise UserError(_complaint(f"{role} '{name}'", fault, here))
        bad |= here
    if not bad.any():
        return frame, []
    _check_row_count(path, int((~bad).sum()), int(bad.sum()))
    return frame[~bad], [_dropped(int(bad.sum()))]


def _dropped(count: int) -> str:
    return f"{counted(count, 'row')} with missing or infinite values dropped"


def _numbers(values: pd.Series[Any]) -> Array | None:
    """A numeric or boolean column as float64, missing values as NaN; None for any other column."""
    if getattr(values.dtype, "kind", "O") not in "biuf":
        return None
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _complaint(what: str, fault: str, bad: Array) -> str:
    """Names the rows, counted from 1 without the header."""
    numbers = np.flatnonzero(bad) + 1
    shown = ", ".join(str(number) for number in numbers[:_SHOWN_ROWS])
    more = ", …" if len(numbers) > _SHOWN_ROWS else ""
    row = "row" if len(numbers) == 1 else "rows"
    return (
        f"{what} has {counted(len(numbers), f'{fault} value')} ({row} {shown}{more}): "
        "drop them with --drop-missing, or fill them"
    )


def _check_row_count(path: Path, count: int, dropped: int) -> None:
    if count < LEAST_ROWS:
        lacking = counted(dropped, "with missing values was", "with missing values were")
        after = f" after {lacking} dropped" if dropped else ""
        raise UserError(
            f"'{path}' has {counted(count, 'row')}{after}: a task needs at least {LEAST_ROWS}"
        )


def _features(frame: pd.DataFrame) -> tuple[Array, list[str]]:
    """(N, D) float64 inputs, text columns one-hot, and a note for each column that was encoded."""
    columns: list[Array] = []
    notes = []
    for name in frame.columns:
        values = frame[name]
        numbers = _numbers(values)
        if numbers is not None:
            columns.append(numbers[:, None])
        elif getattr(values.dtype, "kind", "O") in "OSU":
            encoded, note = _one_hot_column(name, np.array(values.astype(str), dtype=str))
            columns.append(encoded)
            notes.append(note)
        else:
            raise UserError(
                f"column '{name}' is of type {values.dtype}: write it as numbers, or remove it"
            )
    return np.concatenate(columns, axis=1), notes


def _one_hot_column(name: str, texts: Array) -> tuple[Array, str]:
    categories = np.unique(texts)
    if len(categories) > MOST_CATEGORIES:
        raise UserError(
            f"column '{name}' is text with {len(categories)} distinct values (such as "
            f"'{categories[0]}'), more than the {MOST_CATEGORIES} that are one-hot encoded: "
            "remove the column, or write it as numbers"
        )
    shown = ", ".join(categories)
    note = f"text column '{name}' encoded as {counted(len(categories), 'one-hot column')} ({shown})"
    return (texts[:, None] == categories).astype(np.float64), note


def _from_arrays(path: Path, options: Options) -> Task:
    if options.target is not None:
        raise UserError(f"'{path}' holds arrays, not columns: leave --target out")
    arrays = _read_npz(path)
    names = [("x", "y")] if "x" in arrays else [("x_train", "y_train"), ("x_test", "y_test")]
    if "x_val" in arrays and "x" not in arrays:
        names.insert(1, ("x_val", "y_val"))
    missing = [name for pair in names for name in pair if name not in arrays]
    if missing:
        raise UserError(
            f"'{path}' lacks {', '.join(missing)}: name the arrays x and y, or x_train, y_train, "
            f"x_test, y_test and if you like x_val, y_val (it has {', '.join(arrays)})"
        )
    pieces, notes = _clean_pieces(path, [(arrays[x], arrays[y]) for x, y in names], options)
    values = np.concatenate([y for _, y in pieces])
    kind = options.kind or usual_kind(values)
    target = read_target(values, kind, f"target of '{path}'")
    ends = np.cumsum([len(x) for x, _ in pieces])[:-1]
    given = [
        Rows(x, y, target.class_names)
        for (x, _), y in zip(pieces, np.split(target.y, ends), strict=True)
    ]
    notes.append(_kind_note(target, "target", options))
    parts = completed(given, options.seed, f"'{path}'", f"x_train of '{path}'")
    return _task(path, parts, target, options, notes)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as .npz: {describe(error)}") from error


def _clean_pieces(
    path: Path, pieces: list[tuple[Array, Array]], options: Options
) -> tuple[list[tuple[Array, Array]], list[str]]:
    """Arrays of one shape without missing values; x with at least two dimensions."""
    cleaned, dropped = [], 0
    for x, y in (_shaped(path, x, y) for x, y in pieces):
        bad_y, bad_x = _not_finite(y), _not_finite(x)
        for what, bad in (("target", bad_y), ("input", bad_x)):
            if bad.any() and not options.drop_missing:
                raise UserError(_complaint(f"{what} of '{path}'", "missing or infinite", bad))
        bad = bad_x | bad_y
        dropped += int(bad.sum())
        cleaned.append((x[~bad], y[~bad]))
    shapes = {(x.shape[1:], y.shape[1:]) for x, y in cleaned}
    if len(shapes) > 1:
        raise UserError(f"'{path}': training and test arrays differ in shape: {sorted(shapes)}")
    _check_row_count(path, sum(len(x) for x, _ in cleaned), dropped)
    return cleaned, [_dropped(dropped)] if dropped else []


def _shaped(path: Path, x: Array, y: Array) -> tuple[Array, Array]:
    """x as (N, ...) with at least two dimensions, y as (N,) or (N, C > 1)."""
    if x.dtype.kind not in "biuf" or x.ndim == 0 or y.ndim not in (1, 2) or len(x) != len(y):
        raise UserError(
            f"'{path}': x is {x.dtype} of shape {x.shape} and y of shape {y.shape}; "
            "x wants numbers (N, ...), and y (N,) or (N, C)"
        )
    return (
        x.reshape(len(x), *(x.shape[1:] or (1,))),
        y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y,
    )


def _not_finite(values: Array) -> Array:
    """(N,) bool: rows with NaN or infinity."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    return np.asarray(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def _kind_note(target: Target, what: str, options: Options) -> str:
    if target.kind == "classification":
        kind, other = f"classification ({len(target.class_names)} classes)", "regression"
    else:
        kind, other = "regression", "classification"
    return f"{what}: {kind}" + ("" if options.kind else f"; --kind {other} to change that")


def _task(path: Path, parts: Parts, target: Target, options: Options, notes: list[str]) -> Task:
    """Standardised by the training data: inputs by column (images as a whole), numeric targets."""
    old = (parts.train, parts.validation, parts.test)
    dimensions = parts.train.x.ndim
    axis = 0 if dimensions == 2 else tuple(range(dimensions))
    inputs = standardise(*(rows.x for rows in old), axis=axis)
    targets = [rows.y for rows in old]
    if target.kind == "regression":
        targets = standardise(*targets)
        notes = [*notes, "inputs and target standardised by the training data, so is the MSE"]
    else:
        notes = [*notes, "inputs standardised by the training data"]
    scaled = Parts(*(replace(a, x=x, y=y) for a, x, y in zip(old, inputs, targets, strict=True)))
    classes = len(target.class_names) or None
    return compose(
        path.stem,
        as_splits(scaled, classes),
        target.kind,
        options.network or "mlp:64,64",
        notes=tuple(notes),
    )
