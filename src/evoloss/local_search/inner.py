"""What local searches share: the inner training under learned losses, and its judge, the task loss.

A local search is a `HyperGradient`: an estimate of how the task loss after the inner training
changes with the weights φ of the learned loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.device import CPU
from evoloss.engine.fused import Table, fused
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.outputs import transform
from evoloss.engine.stack import Stack
from evoloss.lang.types import Output

Batch = tuple[Tensor, Tensor]
"""Inputs (B, …) and targets (B, C)."""


@dataclass(frozen=True)
class Inner:
    """What the inner training consists of, and the task loss that judges its outcome.

    losses: P learned losses; usual: the task loss, P times; output: the output transform;
    device: where networks and data are.
    """

    stack: Stack
    losses: LossPopulation
    usual: LossPopulation
    output: Output
    sgd: SGD
    device: torch.device = CPU

    @cached_property
    def usual_phi(self) -> Tensor:
        """The numbers of the task loss, which are not tuned."""
        return self.usual.initial_phi(self.device)


class HyperGradient(Protocol):
    """One local search."""

    def __call__(
        self,
        inner: Inner,
        theta: Tensor,
        batches: Sequence[Batch],
        validation: Batch,
        phi: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """The slope in φ (P, N) of the validation task loss after a step per batch from θ (1, D).

        A row depends on its own loss alone, and is not finite where that loss breaks down; rng is
        the only source of random numbers. Nothing that is given is changed.
        Returns: (P, N) float64, zero in the padding.
        """


def sgd_step(
    inner: Inner, batch: Batch, theta: Tensor, velocity: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor]:
    """θ (P, D) and the velocity (P, D) after one step of SGD on a batch, without a graph."""
    x, y = batch
    raw, pullback = inner.stack.pull(theta, x)
    slope = inner.losses.gradient(raw, y, phi, inner.output)
    return inner.sgd.update(theta, pullback(slope), velocity)


def trained(inner: Inner, theta: Tensor, batches: Sequence[Batch], phi: Tensor) -> Tensor:
    """θ (P, D) after a step per batch from θ (1, D), compiled where the engine can."""
    now = theta.repeat(len(phi), 1)
    velocity = torch.zeros_like(now)
    if inner.losses.form(now) == "fused" and (compiled := fused(inner.stack, now, *batches[0])):
        x, y = (torch.cat(column) for column in zip(*batches, strict=True))
        rows = np.arange(len(x)).reshape(len(batches), -1)
        table = Table.of(x, y, rows)
        compiled.train(now, velocity, inner.losses, phi, table, inner.output, inner.sgd)
        return now
    for batch in batches:
        now, velocity = sgd_step(inner, batch, now, velocity, phi)
    return now


def task_loss(inner: Inner, theta: Tensor, validation: Batch) -> Tensor:
    """T (P,), each copy's task loss on the validation batch."""
    x, y = validation
    with torch.no_grad():
        f = transform(inner.stack.forward(theta, x), inner.output)
        return inner.usual.values_and_gradients(f, y, inner.usual_phi)[0]


def task_gradient(inner: Inner, theta: Tensor, validation: Batch) -> Tensor:
    """v = ∂T/∂θ (P, D), of each copy's task loss on the validation batch."""
    x, y = validation
    raw, pullback = inner.stack.pull(theta, x)
    return pullback(inner.usual.gradient(raw, y, inner.usual_phi, inner.output))
