"""Checks what metrics are given: one non-empty row of finite numbers for every answer."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from evoloss.unlearn.metrics.table import Array, MetricError

if TYPE_CHECKING:
    from torch import Tensor

Row: TypeAlias = "Tensor | Array | Sequence[float]"

_ABOVE_ZERO = 1e-5  # what a log-softmax in 32 bits may exceed 0 by


def log_probability_rows(name: str, answers: Sequence[Row]) -> list[Array]:
    """The answers' token log-probabilities as (T_i,) float64 arrays.

    Raises: MetricError if there is no answer, or one has no tokens or impossible values.
    """
    rows = [_numbers(name, number, answer) for number, answer in enumerate(_some(name, answers))]
    for number, row in enumerate(rows):
        if row.max() > _ABOVE_ZERO:
            raise MetricError(
                f"metric '{name}': answer {number} has the log-probability {row.max():g} above 0"
            )
    return [np.minimum(row, 0.0) for row in rows]


def number_rows(name: str, answers: Sequence[Row]) -> list[Array]:
    """Any finite numbers as (T_i,) float64 arrays. Raises: MetricError as above."""
    return [_numbers(name, number, answer) for number, answer in enumerate(_some(name, answers))]


def number_row(name: str, values: Row) -> Array:
    """One (N,) float64 array. Raises: MetricError if it is empty or not all finite."""
    row = as_array(values).astype(np.float64)
    if row.ndim != 1 or not len(row):
        raise MetricError(f"metric '{name}' needs one number per answer, not shape {row.shape}")
    if not np.isfinite(row).all():
        raise MetricError(f"metric '{name}': answer {_first_bad(row)} has no finite number")
    return row


def match_rows(name: str, answers: Sequence[Row]) -> list[Array]:
    """Whether each token is the most probable one, as (T_i,) bool arrays.

    Raises: MetricError if there is no answer, or one has no tokens.
    """
    rows = [as_array(answer).astype(bool) for answer in _some(name, answers)]
    for number, row in enumerate(rows):
        _check_row(name, number, row)
    return rows


def same_count(name: str, **given: Sized) -> None:
    """Raises: MetricError if the named sequences are not all equally long."""
    if len({len(each) for each in given.values()}) > 1:
        counts = ", ".join(f"{len(each)} {what}" for what, each in given.items())
        raise MetricError(f"metric '{name}' needs one of each for every answer, not {counts}")


def as_array(values: Row) -> Array:
    """A tensor on any device and of any type, or a sequence, as an array."""
    if hasattr(values, "detach"):
        return np.asarray(values.detach().double().cpu().numpy())
    return np.asarray(values)


def _some(name: str, answers: Sequence[Row]) -> Sequence[Row]:
    if not len(answers):
        raise MetricError(f"metric '{name}' has no answers to measure")
    return answers


def _numbers(name: str, number: int, answer: Row) -> Array:
    row = as_array(answer).astype(np.float64)
    _check_row(name, number, row)
    if not np.isfinite(row).all():
        bad = _first_bad(row)
        raise MetricError(f"metric '{name}': answer {number} has {row[bad]} at token {bad}")
    return row


def _check_row(name: str, number: int, row: Array) -> None:
    if row.ndim != 1 or not len(row):
        what = "no tokens" if row.ndim == 1 else f"the shape {row.shape}, not one row"
        raise MetricError(f"metric '{name}': answer {number} has {what}")


def _first_bad(row: Array) -> int:
    return int(np.flatnonzero(~np.isfinite(row))[0])
