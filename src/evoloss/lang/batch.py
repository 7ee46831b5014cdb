"""The operators over the batch as NumPy functions, and the parts of their gradients.

Every vector is one-dimensional, (n,). Their definitions are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _mean(a: Array) -> Array:
    return np.asarray(np.sum(a) / np.size(a))  # of nothing NaN, and no warning as from NumPy's


def _var(a: Array) -> Array:
    return _mean(np.square(a - _mean(a)))


def _logsumexp(a: Array) -> Array:
    largest = np.max(a)
    shift = largest if np.isfinite(largest) else np.float64(0.0)
    return np.asarray(np.log(np.sum(np.exp(a - shift))) + shift)


def _softmax(a: Array) -> Array:
    return np.asarray(np.exp(a - _logsumexp(a)))


def _median(a: Array) -> Array:
    """The lower of the two middle elements of an even number of them."""
    return np.asarray(np.sort(a, axis=None)[(np.size(a) - 1) // 2])


def _first(mask: Array) -> Array:
    """1 at the first element where the mask holds, 0 elsewhere."""
    marks = np.zeros(np.shape(mask))
    marks.flat[np.argmax(mask)] = 1.0
    return marks


def _between(a: Array, q: Array) -> tuple[int, int, float]:
    """The ranks on either side of a quantile, and how far it lies between them."""
    rank = float(q) * (np.size(a) - 1)
    below = int(np.floor(rank))
    return below, min(below + 1, np.size(a) - 1), rank - below


def _quantile_weights(a: Array, q: Array) -> Array:
    below, above, share = _between(a, q)
    order = np.argsort(a, kind="stable")
    weights = np.zeros(np.size(a))
    weights[order[below]] += 1.0 - share
    weights[order[above]] += share
    return weights


def _quantile_slope(a: Array, q: Array) -> float:
    below, above, _ = _between(a, q)
    ordered = np.sort(a)
    return float((ordered[above] - ordered[below]) * (np.size(a) - 1))


def _unsorted(a: Array, g: Array) -> Array:
    found = np.empty(np.shape(a))
    found[np.argsort(a, kind="stable")] = g
    return found


def _padded_after(a: Array, g: Array) -> Array:
    return np.concatenate([g, np.zeros(np.size(a) - np.size(g))])


def _padded_before(a: Array, g: Array) -> Array:
    return np.concatenate([np.zeros(np.size(a) - np.size(g)), g])


def _select(mask: Array, a: Array) -> Array:
    return a[np.broadcast_to(mask > 0.5, np.shape(a))]


def _scattered(mask: Array, a: Array, g: Array) -> Array:
    found = np.zeros(np.shape(a))
    found[np.broadcast_to(mask > 0.5, np.shape(a))] = g
    return found


def _cat(a: Array, b: Array) -> Array:
    return np.concatenate([np.ravel(a), np.ravel(b)])


def _first_part(a: Array, g: Array) -> Array:
    return np.reshape(g[: np.size(a)], np.shape(a))


def _last_part(b: Array, g: Array) -> Array:
    return np.reshape(g[np.size(g) - np.size(b) :], np.shape(b))


BATCH: Mapping[str, Callable[..., Any]] = {
    "mean": _mean, "sum": np.sum, "amin": np.min, "amax": np.max, "median": _median,
    "var": _var, "std": lambda a: np.sqrt(_var(a)), "norm": lambda a: np.sqrt(np.sum(a * a)),
    "logsumexp": _logsumexp, "quantile": np.quantile, "size": lambda a: np.float64(np.size(a)),
    "any": lambda mask: np.float64(np.any(mask > 0.5)),
    "all": lambda mask: np.float64(np.all(mask > 0.5)),
    "softmax": _softmax, "sort": np.sort, "head": lambda a, b: a[: int(b)],
    "tail": lambda a, b: a[int(b) :], "select": _select, "cat": _cat,
    "position": lambda a: np.arange(np.size(a), dtype=np.float64),
    "like": lambda a, b: np.full(np.shape(a), b),
    "first": _first, "quantile_weights": _quantile_weights, "quantile_slope": _quantile_slope,
    "unsorted": _unsorted, "padded_after": _padded_after, "padded_before": _padded_before,
    "scattered": _scattered, "first_part": _first_part, "last_part": _last_part,
}  # fmt: skip
"""What the NumPy texts of the operators over the batch may call."""
