"""Base networks in bfloat16: products of matrices in half the bits, all else in single precision.

torch's autocast (Micikevicius et al. 2018, "Mixed precision training", with bfloat16, whose range
needs no scaling of the loss). Weights, losses and predictions for the metric stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.engine.batch_norm import Statistics
from evoloss.engine.stack import Pullback, Stack


@dataclass(frozen=True)
class HalfPrecision:
    """A stack whose training passes take bfloat16; see `Stack`."""

    stack: Stack

    @property
    def repeatable(self) -> bool:
        return self.stack.repeatable

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        with _autocast(theta):
            return self.stack.forward(theta, x).float()

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        with _autocast(theta):
            raw, back = self.stack.pull(theta, x)

        def pullback(gradient: Tensor) -> Tensor:
            with _autocast(theta):
                return back(gradient.to(raw.dtype)).float()

        return raw.float(), pullback

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        with _autocast(theta):
            return self.stack.push(theta, x, along).float()

    def statistics(self, theta: Tensor, batches: Sequence[Tensor]) -> Statistics | None:
        return self.stack.statistics(theta, batches)

    def predict(self, theta: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self.stack.predict(theta, x, statistics)

    def reseed(self, noise: int) -> None:
        self.stack.reseed(noise)


def _autocast(tensor: Tensor) -> AbstractContextManager[object]:
    # Without its cache, which would outlive a recording of the step.
    return torch.autocast(tensor.device.type, torch.bfloat16, cache_enabled=False)
