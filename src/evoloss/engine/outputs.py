"""The output transform f of a network's raw output, and its derivative."""

from torch import Tensor

from evoloss.lang.types import Output


def transform(raw: Tensor, output: Output) -> Tensor:
    """The prediction f (..., C) of raw outputs (..., C)."""
    if output == "softmax":
        # Over a short last dimension, torch's softmax takes twelve times as long.
        return raw.mT.contiguous().softmax(-2).mT if raw.dim() > 1 else raw.softmax(-1)
    if output == "sigmoid":
        return raw.sigmoid()
    return raw


def push_forward(f: Tensor, along: Tensor, output: Output) -> Tensor:
    """The derivative of f along a direction (..., C) in the raw output.

    Both transforms have a symmetric Jacobian, so this is their vector-Jacobian product as well.
    """
    if output == "softmax":
        return f * (along - (along * f).sum(-1, keepdim=True))
    if output == "sigmoid":
        return along * f * (1.0 - f)
    return along
