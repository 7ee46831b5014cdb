"""The output transform f of a network's raw output, and its derivative in both modes."""

from torch import Tensor


def transform(raw: Tensor, output: str) -> Tensor:
    """The prediction f (..., C) of raw outputs (..., C)."""
    if output == "softmax":
        return raw.softmax(-1)
    if output == "sigmoid":
        return raw.sigmoid()
    return raw


def pull_back(f: Tensor, gradient: Tensor, output: str) -> Tensor:
    """The gradient in the raw output, from the prediction f and the gradient in it."""
    if output == "softmax":
        inner = (gradient * f).sum(-1, keepdim=True)
        return (gradient - inner) * f
    if output == "sigmoid":
        return gradient * f * (1.0 - f)
    return gradient


# Both transforms have a symmetric Jacobian, so the same function pushes tangents forward.
push_forward = pull_back
