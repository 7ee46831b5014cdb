"""How much of an axis is shown: a pole or a diverged training must not flatten all the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_REACH = 2.5  # quartile distances from the quartiles (Tukey 1977, who takes 1.5)
_MARGIN = 0.08


def limits(values: ArrayLike, keep: ArrayLike = ()) -> tuple[float, float]:
    """The ends of an axis that holds all values but outliers, and all of `keep`."""
    finite, kept = _finite(values), _finite(keep)
    if not len(finite):
        finite = kept
    if not len(finite):
        return 0.0, 1.0
    first, third = np.percentile(finite, [25, 75])
    reach = _REACH * (third - first) or 0.05 * abs(third) or 0.05
    low = min(max(finite.min(), first - reach), kept.min(initial=np.inf))
    high = max(min(finite.max(), third + reach), kept.max(initial=-np.inf))
    margin = _MARGIN * (high - low) or 0.05 * abs(high) or 0.05
    return float(low - margin), float(high + margin)


def _finite(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
