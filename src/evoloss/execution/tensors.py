"""Arrays that came from another process, as tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Without a copy, though torch warns that some arrays must not be written to: nobody does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)
