"""What a loss network computes, on NumPy arrays and torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evoloss.lang.network import SHAPES, Network

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]


def matrices(weights: Any) -> tuple[Any, Any, Any]:
    """Weights (…, 2650) as the three matrices (…, out, in); NumPy's or torch's."""
    found, at = [], 0
    for rows, columns in SHAPES:
        end = at + rows * columns
        found.append(weights[..., at:end].reshape(*weights.shape[:-1], rows, columns))
        at = end
    return found[0], found[1], found[2]


def numpy_matrices(network: Network) -> tuple[Array, Array, Array]:
    """The network's three matrices (out, in)."""
    return matrices(np.frombuffer(network.packed, dtype="<f4").astype(np.float64))


def numpy_network(y: Array, f: Array, network: Network) -> Array:
    """The loss of every element."""
    return np.logaddexp(numpy_line(y, f, network)[0], 0.0)


def numpy_line(y: Array, f: Array, network: Network) -> tuple[Array, Array, Array]:
    """The network's output before the softplus, and its slopes in y and in f."""
    x = np.stack(np.broadcast_arrays(y, f), axis=-1)
    first, second, third = numpy_matrices(network)
    one = x @ first.T
    two = np.maximum(one, 0.0) @ second.T
    slopes = (((two > 0.0) * third[0]) @ second * (one > 0.0)) @ first
    return np.maximum(two, 0.0) @ third[0], slopes[..., 0], slopes[..., 1]


def torch_network(y: Tensor, f: Tensor, network: Network) -> Tensor:
    """The loss of every element."""
    import torch

    weights = torch.tensor(network.weights, dtype=f.dtype, device=f.device)
    return torch_losses(torch.stack(torch.broadcast_tensors(y, f), -1), weights)


def torch_losses(x: Tensor, weights: Tensor) -> Tensor:
    """(…, M) losses at x (…, M, 2) of the networks with weights (…, 2650)."""
    from torch.nn.functional import softplus

    first, second, third = matrices(weights)
    output = ((x @ first.mT).relu() @ second.mT).relu() @ third.mT
    # Past 40, log(1 + e^a) is a to the last bit of a float64.
    return softplus(output[..., 0], threshold=40.0)
