"""A loss function discovered by evoloss.

    L(y, f) = 1.2991844376101211*-(1.2991844376101211*(1.2843179996638134*y -
        1.309770283388174*-(1.309770283388174*(1.310988252959709*y -
        1.2373722182352032*f))))*(1.2991844376101211*log(1.0000000000003717*f))

f is the softmax of the network's raw output (logits), y the target.
L is summed over the outputs and averaged over the batch.
"""

import torch
from torch import Tensor, nn


def log(a: Tensor) -> Tensor:
    return torch.log(torch.clamp(torch.abs(a), min=1e-07))


class DiscoveredLoss(nn.Module):
    """Called as `loss(prediction, target)`; returns a scalar.

    prediction: (B, C), raw: this applies the softmax.
    target: integer class indices (B,), or floats of the prediction's shape.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if target.dim() == prediction.dim() - 1 and not target.is_floating_point():
            target = nn.functional.one_hot(target.long(), prediction.shape[-1])
        if target.shape != prediction.shape:
            raise ValueError(
                f"target of shape {list(target.shape)} for a prediction of shape "
                f"{list(prediction.shape)}: "
                "give integer class indices (B,), or floats of the prediction's shape"
            )
        y = target.to(prediction.dtype)
        f = torch.softmax(prediction, dim=-1)
        loss = (
            1.2991844376101211 * -(1.2991844376101211 * (1.2843179996638134 * y - 1.309770283388174
            * -(1.309770283388174 * (1.310988252959709 * y - 1.2373722182352032 * f)))) *
            (1.2991844376101211 * log(1.0000000000003717 * f))
        )
        return loss.sum(dim=-1).mean()
