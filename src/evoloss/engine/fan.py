"""A loss network with fixed weights as a table: without biases, it is a fan of planes.

Rectified linear layers without biases are positively homogeneous: before its softplus, the output
is linear in (y, f) along whole rays from the origin. The plane of (y, f) falls into some hundred
sectors, each with its own slopes in y and f, and finding a point's sector takes a few comparisons
where the matrix products take thousands of multiplications.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evoloss.lang.network import Network
from evoloss.lang.network_form import numpy_matrices

Array = NDArray[np.float64]


@lru_cache(maxsize=256)
def fan(network: Network) -> tuple[Array, Array]:
    """Where the sectors begin (K,), as `angle`s from −2 up, and their slopes in y and f (2, K)."""
    first, second, third = numpy_matrices(network)
    coarse = _sorted(_zeros(first))
    middles = _direction(_middles(coarse))
    finer = [
        crossings[(low < crossings) & (crossings < high)]
        for (low, high), x in zip(pairwise([*coarse, 2.0]), middles, strict=True)
        if len(crossings := _zeros(second @ (first * (first @ x > 0.0)[:, None])))
    ]
    begins = _sorted(np.concatenate([coarse, *finer]))
    one = _direction(_middles(begins)) @ first.T
    two = np.maximum(one, 0.0) @ second.T
    slopes: Array = ((two > 0.0) * third[0]) @ second * (one > 0.0) @ first
    return begins, slopes.T


def angle(y: Any, f: Any) -> Any:
    """A number from −2 to 2 that grows with the angle of (y, f), from −y by −f, +y and f to −y."""
    share = y / (np.abs(y) + np.abs(f))
    return np.where(f >= 0.0, 1.0 - share, share - 1.0)


def _direction(angles: Array) -> Array:
    """(…, 2) points (y, f) of the angles."""
    y = np.where(angles >= 0.0, 1.0 - angles, 1.0 + angles)
    f = 1.0 - np.abs(y)
    return np.stack([y, np.where(angles >= 0.0, f, -f)], axis=-1)


def _zeros(rows: Array) -> Array:
    """The angles at which linear functions of (y, f), (N, 2), change their sign: two each."""
    rows = rows[np.abs(rows).sum(1) > 0.0]
    y, f = -rows[:, 1], rows[:, 0]
    return np.concatenate([angle(y, f), angle(-y, -f)])


def _sorted(angles: Array) -> Array:
    return np.unique(np.concatenate([[-2.0], angles]))


def _middles(begins: Array) -> Array:
    ends: Array = np.append(begins[1:], 2.0)
    return 0.5 * (begins + ends)
