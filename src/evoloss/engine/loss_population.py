"""A population of losses as one function: fused kernels by Numba or Triton, or torch operations.

Shapes: P losses, B rows of a batch, C outputs a row, N the most weights that any loss has.
A loss is the sum over outputs and the mean over rows of its expression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evoloss.engine import kernels, torch_form, triton_form
from evoloss.engine.device import CPU
from evoloss.engine.outputs import push_forward, transform
from evoloss.engine.program import Programs, Weights, flatten
from evoloss.engine.threads import spread
from evoloss.lang.expr import Expr, has_network
from evoloss.lang.network import Network
from evoloss.lang.types import Output
from evoloss.machine import cores

Backend = Literal["fused", "triton", "torch"]
OUTPUTS = {"identity": kernels.IDENTITY, "sigmoid": kernels.SIGMOID, "softmax": kernels.SOFTMAX}

# Below this many node evaluations (about an eighth of a millisecond) a second thread costs more
# than it brings, and much more when other programs want the cores.
_WORTH_A_THREAD = 150_000


class LossPopulation:
    """P losses that share inputs, with weights φ given from outside at every call.

    backend: `fused`, or `torch` for plain torch operations on any device; all compute the same.
        Fused is Numba's for tensors on the CPU. Others take Triton's by themselves where it is
        installed, else the torch form; `triton` asks for that on the CPU too, which it can where
        it interprets. Networks whose weights are tuned take the torch form, networks with fixed
        weights have a fused form on the CPU.
    """

    def __init__(
        self, expressions: Sequence[Expr], weights: Weights = "edges", backend: Backend = "fused"
    ) -> None:
        self.expressions = tuple(expressions)
        self.weights: Weights = weights
        tuned = weights == "constants" and any(map(has_network, self.expressions))
        self.backend: Backend = "torch" if tuned else backend
        self.only_networks = tuned and all(isinstance(e, Network) for e in self.expressions)
        self.programs: Programs = flatten(self.expressions, weights)
        self._halves = _balanced(self.programs.start, cores())
        self._walked: dict[torch.device, triton_form.Walked] = {}

    def __len__(self) -> int:
        return len(self.expressions)

    def form(self, tensor: Tensor) -> Backend:
        """What this tensor is computed with."""
        if self.backend == "torch" or (self.backend == "fused" and tensor.device.type == "cpu"):
            return self.backend
        return "triton" if triton_form.usable(self.programs, tensor) else "torch"

    def walked(self, device: torch.device) -> triton_form.Walked:
        """The programs as Triton's kernels read them, on a device."""
        if device not in self._walked:
            self._walked[device] = triton_form.Walked.of(self.programs, device)
        return self._walked[device]

    def initial_phi(self, device: torch.device = CPU) -> Tensor:
        """(P, N) float64: 1 on every edge, or the constants' own values; 1 in the padding.

        With weights `none` it holds the constant factors, and is to be passed on as it is.
        """
        return torch.from_numpy(self.programs.phi.copy()).to(device)

    def gradient(
        self, raw: Tensor, target: Tensor, phi: Tensor, output: Output = "identity"
    ) -> Tensor:
        """(P, B, C) gradient in the raw prediction, through the output transform.

        raw: (P, B, C), or (1, B, C) where all losses see the same; target: (B, C).
        """
        if (form := self.form(raw)) == "torch":
            return torch_form.gradient(self, raw, target, phi, output)
        if form == "triton":
            return triton_form.gradient(self.walked(raw.device), raw, target, phi, output)
        f = transform(raw, output)
        p, q = self.programs, _flat(f)
        out = np.empty((len(self), q.shape[1]), dtype=q.dtype)
        shared = (p.code, p.operands, p.slots, p.constant, p.live, p.start, phi.numpy())
        scale = 1.0 / len(target)
        self._run(
            kernels.gradients, *shared, q, _vector(target), scale, out, work=out.shape[1]
        )  # fmt: skip
        slope = torch.from_numpy(out).view(len(self), *target.shape)
        return push_forward(f, slope, output)

    def values_and_gradients(
        self, prediction: Tensor, target: Tensor, phi: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values (P,), gradients in the prediction (P, B, C) and in the weights (P, N)."""
        if (form := self.form(prediction)) == "torch":
            return torch_form.values_and_gradients(self, prediction, target, phi)
        if form == "triton":
            return triton_form.values_and_gradients(
                self.walked(prediction.device), prediction, target, phi
            )
        p, q = self.programs, _flat(prediction)
        value, out = np.empty(len(self)), np.empty((len(self), q.shape[1]), dtype=q.dtype)
        by_phi = np.zeros_like(p.phi)
        shared = (p.code, p.operands, p.slots, p.constant, p.start, phi.detach().numpy())
        scale = 1.0 / len(target)
        self._run(
            kernels.values_and_gradients, *shared, q, _vector(target), scale, value, out, by_phi,
            work=out.shape[1],
        )  # fmt: skip
        return (
            torch.from_numpy(value).to(prediction.dtype),
            torch.from_numpy(out).view(len(self), *target.shape),
            torch.from_numpy(by_phi),
        )

    def curvature(
        self,
        prediction: Tensor,
        target: Tensor,
        phi: Tensor,
        along: Tensor,
        along_phi: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The Hessian in (prediction, φ) times a direction (P, B, C), (P, N).

        With the direction w in the prediction alone, the second result is the mixed derivative
        ∂/∂φ ⟨G(φ), w⟩ that the hyper-gradient needs.
        Returns: (P, B, C) and (P, N).
        """
        if (form := self.form(prediction)) == "torch":
            return torch_form.curvature(self, prediction, target, phi, along, along_phi)
        if form == "triton":
            return triton_form.curvature(
                self.walked(prediction.device), prediction, target, phi, along, along_phi
            )
        p, q = self.programs, _flat(prediction)
        w = np.ascontiguousarray(_flat(along), dtype=q.dtype)
        z = np.zeros_like(p.phi) if along_phi is None else along_phi.detach().numpy()
        out, by_phi = np.empty_like(w), np.zeros_like(p.phi)
        shared = (p.code, p.operands, p.slots, p.constant, p.start, phi.detach().numpy())
        scale = 1.0 / len(target)
        self._run(
            kernels.curvature, *shared, q, _vector(target), scale, w, z, out, by_phi,
            work=2 * out.shape[1],
        )  # fmt: skip
        return torch.from_numpy(out).view(along.shape), torch.from_numpy(by_phi)

    def minimise(
        self, raw: Tensor, target: Tensor, phi: Tensor, output: Output, steps: int, lr: float
    ) -> Tensor:
        """Raw predictions (P, B, C) after `steps` of Adam on each loss, from raw (B, C).

        The rejection protocol's inner loop: every prediction is a free parameter.
        """
        if (form := self.form(raw)) == "torch":
            return torch_form.minimise(self, raw, target, phi, output, steps, lr)
        if form == "triton":
            return triton_form.minimise(
                self.walked(raw.device), raw, target, phi, output, steps, lr
            )
        p = self.programs
        out = np.empty((len(self), raw.numel()))
        shared = (p.code, p.operands, p.slots, p.constant, p.live, p.start, phi.numpy())
        start, y = _vector(raw.double()), _vector(target)
        self._run(
            kernels.minimise, *shared, start, y, raw.shape[1], OUTPUTS[output], steps, lr, out,
            work=steps * out.shape[1],
        )  # fmt: skip
        return torch.from_numpy(out).view(len(self), *raw.shape)

    def _run(self, kernel: Callable[..., None], *arguments: Any, work: int) -> None:
        """The kernel over all programs, halved over two threads where that pays.

        work: how often each node is evaluated.
        """
        worth = int(self.programs.start[-1]) * work >= _WORTH_A_THREAD
        spread(kernel, arguments, self._halves if worth else (0, len(self)))


class _Value(torch.autograd.Function):
    """Values of the losses; its gradient is differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any, population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor
    ) -> Tensor:
        ctx.population = population
        ctx.save_for_backward(prediction, target, phi)
        return population.values_and_gradients(prediction.detach(), target, phi)[0]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor, None, Tensor]:
        prediction, target, phi = ctx.saved_tensors
        by_prediction, by_phi = _Gradient.apply(  # type: ignore[no-untyped-call]
            ctx.population, prediction, target, phi
        )
        (weight,) = outer
        return None, weight[:, None, None] * by_prediction, None, weight[:, None] * by_phi


class _Gradient(torch.autograd.Function):
    """Gradients of the losses in prediction and φ; differentiated by a Hessian-vector product."""

    @staticmethod
    def forward(
        ctx: Any, population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.population = population
        ctx.save_for_backward(prediction, target, phi)
        return population.values_and_gradients(prediction.detach(), target, phi)[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor) -> tuple[None, Tensor, None, Tensor]:
        prediction, target, phi = ctx.saved_tensors
        by_prediction, by_phi = ctx.population.curvature(prediction.detach(), target, phi, *along)
        return None, by_prediction, None, by_phi


def values(population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor) -> Tensor:
    """(P,) values, differentiable twice in the prediction (P, B, C) and in φ (P, N)."""
    if population.form(prediction) == "torch":
        return torch_form.values(population, prediction, target, phi)
    return _Value.apply(population, prediction, target, phi)  # type: ignore[no-any-return, no-untyped-call]


def _flat(tensor: Tensor) -> NDArray[Any]:
    """(P, B, C) as a contiguous (P, B·C) array."""
    array: NDArray[Any] = tensor.detach().reshape(len(tensor), -1).contiguous().numpy()
    return array


def _vector(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().reshape(-1).contiguous().numpy()
    return array


def _balanced(start: NDArray[np.int64], parts: int) -> list[int]:
    """Bounds that split the programs into parts of about equal nodes."""
    aims = np.linspace(0, start[-1], parts + 1)
    return sorted(set(np.searchsorted(start, aims).tolist()))
