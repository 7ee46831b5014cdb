"""Training and tuning of multilayer perceptrons as one compiled call for many steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.linalg  # noqa: F401  Numba's matrix products are scipy's BLAS, limited below
import threadpoolctl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evoloss.engine import dense_kernels
from evoloss.engine.dense import DenseStack
from evoloss.engine.loss_population import OUTPUTS, LossPopulation
from evoloss.engine.optimisers import SGD, Adam
from evoloss.engine.threads import spread
from evoloss.lang.types import Output
from evoloss.machine import cores

_ACTIVATIONS = {
    nn.Identity: dense_kernels.IDENTITY,
    nn.ReLU: dense_kernels.RELU,
    nn.Tanh: dense_kernels.TANH,
    nn.Sigmoid: dense_kernels.SIGMOID,
}


@dataclass(frozen=True)
class Table:
    """Minibatches by row number. x: (N, I), y: (N, C), rows: (S, B)."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, x: Tensor, y: Tensor, rows: NDArray[np.int64]) -> Table:
        """From tensors; inputs of more than one dimension are flattened."""
        return cls(x.flatten(1).contiguous().numpy(), y.contiguous().numpy(), rows)

    def part(self, steps: slice) -> Table:
        """Only some of the steps."""
        return Table(self.x, self.y, self.rows[steps])


class FusedDense:
    """The compiled counterpart of a `DenseStack`: same networks, same layout of θ."""

    def __init__(self, stack: DenseStack) -> None:
        self.stack = stack

    @cached_property
    def net(self) -> tuple[NDArray[np.int64], ...]:
        """Sizes, offsets and activations of the layers, as `dense_kernels` wants them."""
        layout, layers = self.stack.layout, self.stack.layers
        offset = dict(zip(layout.names, np.cumsum([0, *layout.sizes]), strict=False))
        shape = dict(zip(layout.names, layout.shapes, strict=True))
        return (
            np.array([shape[layers[0].weight][1], *(shape[each.weight][0] for each in layers)]),
            np.array([offset[each.weight] for each in layers]),
            np.array([-1 if each.bias is None else offset[each.bias] for each in layers]),
            np.array([_ACTIVATIONS[each.kind] for each in layers]),
        )

    def train(
        self, theta: Tensor, velocity: Tensor, losses: LossPopulation, phi: Tensor, batches: Table,
        output: Output, sgd: SGD,
    ) -> None:  # fmt: skip
        """A step of SGD for each row of the table; θ and velocity (P, D) are changed in place."""
        arguments = (
            self.net, OUTPUTS[output], _programs(losses), phi.numpy(),
            sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay,
            theta.numpy(), velocity.numpy(), batches.x, batches.y, batches.rows,
        )  # fmt: skip
        with _one_blas_thread():
            spread(dense_kernels.train, arguments, _parts(len(losses)))

    def tune(
        self, phi: Tensor, moments: tuple[Tensor, Tensor], done: int, adam: Adam,
        losses: LossPopulation, usual: LossPopulation, theta: Tensor, batches: Table,
        held_out: Table, output: Output, sgd: SGD,
    ) -> None:  # fmt: skip
        """Steps of local search from step `done` on; φ and Adam's moments change in place.

        theta: (S, D) initial weights of each step; usual: the task loss, once.
        """
        arguments = (
            self.net, OUTPUTS[output], _programs(losses), phi.numpy(), _programs(usual),
            usual.programs.phi, moments[0].numpy(), moments[1].numpy(), done, adam.lr,
            sgd.lr, sgd.first_step_factor, sgd.weight_decay, theta.numpy(),
            batches.x, batches.y, batches.rows, held_out.x, held_out.y, held_out.rows,
        )  # fmt: skip
        with _one_blas_thread():
            spread(dense_kernels.tune, arguments, _parts(len(losses)))


def fused(stack: object, *tensors: Tensor) -> FusedDense | None:
    """The compiled form of a stack; None if it has none, or none for tensors like these."""
    if type(stack) is not DenseStack:
        return None
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in tensors):
        return None
    return FusedDense(stack)


def _programs(losses: LossPopulation) -> tuple[NDArray[Any], ...]:
    p = losses.programs
    return p.code, p.operands, p.slots, p.constant, p.live, p.start


def _parts(copies: int) -> list[int]:
    """Bounds of equal parts, one a core; a copy's result does not depend on them."""
    parts = max(1, min(cores(), copies))
    return [round(part * copies / parts) for part in range(parts + 1)]


@cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """The cores are taken by copies; a matrix product of one copy is too small to share."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield
