"""Stochastic gradient descent and Adam as pure init/update pairs on tensors of any shape.

They agree with `torch.optim.SGD` and `torch.optim.Adam` step by step; unlike those they can run
over a stack of networks, be differentiated through, and hold no hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum (Sutskever et al. 2013, torch's form) and weight decay."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def init(self, theta: Tensor) -> Tensor:
        """The velocity, of theta's shape."""
        return torch.zeros_like(theta)

    def update(self, theta: Tensor, gradient: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """The next parameters and velocity; differentiable in all three arguments."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        if self.momentum:
            velocity = self.momentum * velocity + gradient
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        return theta - self.lr * gradient, velocity

    def update_(self, theta: Tensor, gradient: Tensor, velocity: Tensor) -> None:
        """`update` in place, without allocating; the gradient is overwritten."""
        if self.weight_decay:
            gradient.add_(theta, alpha=self.weight_decay)
        if self.momentum:
            velocity.mul_(self.momentum).add_(gradient)
            if self.nesterov:
                gradient.add_(velocity, alpha=self.momentum)
            else:
                gradient = velocity
        theta.add_(gradient, alpha=-self.lr)

    def first_step(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """The parameters after one step from rest; theta may be one row for all gradients."""
        reach = self.lr * self.first_step_factor
        return torch.add((1.0 - reach * self.weight_decay) * theta, gradient, alpha=-reach)

    @property
    def first_step_factor(self) -> float:
        """How far the first step from rest goes, in multiples of lr times the gradient."""
        return 1.0 + self.momentum if self.momentum and self.nesterov else 1.0


@dataclass(frozen=True)
class AdamState:
    """Step count and running moments of the gradient."""

    step: int
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) with torch's defaults."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, theta: Tensor) -> AdamState:
        """Moments at zero."""
        return AdamState(0, torch.zeros_like(theta), torch.zeros_like(theta))

    def update(self, theta: Tensor, gradient: Tensor, state: AdamState) -> tuple[Tensor, AdamState]:
        """The next parameters and state."""
        step = state.step + 1
        first = state.first.lerp(gradient, 1.0 - self.beta1)
        second = state.second * self.beta2 + (1.0 - self.beta2) * gradient * gradient
        scale = (second / (1.0 - self.beta2**step)).sqrt_().add_(self.epsilon)
        stepped = theta - self.lr / (1.0 - self.beta1**step) * first / scale
        return stepped, AdamState(step, first, second)


def minimised(
    raw: Tensor, copies: int, slope: Callable[[Tensor], Tensor], steps: int, lr: float
) -> Tensor:
    """Raw predictions (copies, B, C) after `steps` of Adam from raw (B, C), in double precision.

    slope: of what is minimised, in predictions of the result's shape.
    """
    adam = Adam(lr)
    free = raw.double().expand(copies, *raw.shape).clone()
    state = adam.init(free)
    for _ in range(steps):
        free, state = adam.update(free, slope(free), state)
    return free
