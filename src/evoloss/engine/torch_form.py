"""The population's losses in plain torch operations: for CUDA, and as a second opinion.

Every derivative is autograd's, so this shares with the kernels only the operator table's value
texts. Same functions and shapes as `LossPopulation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evoloss.engine import loss_networks
from evoloss.engine.optimisers import minimised
from evoloss.engine.outputs import transform
from evoloss.lang.evaluate import torch_operator
from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.network import WEIGHTS, Network
from evoloss.lang.network_form import torch_losses, torch_network
from evoloss.lang.types import Output

if TYPE_CHECKING:
    from evoloss.engine.loss_population import LossPopulation


def values(population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor) -> Tensor:
    """(P,) values with a graph, differentiable as often as one likes."""
    if population.only_networks:
        return loss_networks.values(prediction, target, phi)
    totals = []
    for index, expr in enumerate(population.expressions):
        f = prediction[index if len(prediction) > 1 else 0]
        weights = phi[index].to(f).unbind() if phi.shape[1] else ()
        value, _ = _evaluate(expr, target, f, weights, 0, population.weights)
        totals.append(value.expand_as(f).sum() / len(target))
    return torch.stack(totals)


def _evaluate(
    expr: Expr, y: Tensor, f: Tensor, phi: tuple[Tensor, ...], slot: int, weights: str
) -> tuple[Tensor, int]:
    """The value of a subtree and the next free slot of φ."""
    match expr:
        case Input(name):
            return (f if name == "f" else y), slot
        case Const(number):
            return torch.as_tensor(number, dtype=f.dtype, device=f.device), slot
        case Network():
            if weights != "constants":
                return torch_network(y, f, expr), slot
            own, slot = torch.stack(phi[slot : slot + WEIGHTS]), slot + WEIGHTS
            return torch_losses(torch.stack(torch.broadcast_tensors(y, f), -1), own), slot
        case Call(op, args):
            operands = []
            for arg in args:
                weight: Tensor | float = 1.0
                if weights == "edges":
                    weight, slot = phi[slot], slot + 1
                elif weights == "constants" and isinstance(arg, Const):
                    weight, slot, arg = phi[slot], slot + 1, Const(1.0)
                operand, slot = _evaluate(arg, y, f, phi, slot, weights)
                operands.append(weight * operand)
            value: Tensor = torch_operator(op)(*operands)
            return value, slot


def values_and_gradients(
    population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (P,), gradients in the prediction (P, B, C) and in the weights (P, N)."""
    with torch.enable_grad():
        f, w = _leaves(population, prediction, phi)
        value = values(population, f, target, w)
        by_f, by_phi = _gradients(value.sum(), f, w, keep=False)
    return value.detach(), by_f, by_phi


def gradient(
    population: LossPopulation, raw: Tensor, target: Tensor, phi: Tensor, output: Output
) -> Tensor:
    """(P, B, C) gradient in the raw prediction, through the output transform."""
    if population.only_networks:
        return loss_networks.gradient(raw, target, phi, output)
    with torch.enable_grad():
        leaf, weights = _leaves(population, raw, phi)
        value = values(population, transform(leaf, output), target, weights)
        return _gradients(value.sum(), leaf, weights, keep=False)[0]


def curvature(
    population: LossPopulation,
    prediction: Tensor,
    target: Tensor,
    phi: Tensor,
    along: Tensor,
    along_phi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The Hessian in (prediction, φ) times a direction, by double backward."""
    if population.only_networks and along_phi is None:
        return loss_networks.curvature(prediction, target, phi, along)
    with torch.enable_grad():
        f, w = _leaves(population, prediction, phi)
        by_f, by_phi = _gradients(values(population, f, target, w).sum(), f, w, keep=True)
        slope = (by_f * along).sum()
        if along_phi is not None:
            slope = slope + (by_phi * along_phi).sum()
        if not slope.requires_grad:  # a loss that is linear in everything has no curvature
            return torch.zeros_like(f), torch.zeros_like(w)
        return _gradients(slope, f, w, keep=False)


def minimise(
    population: LossPopulation,
    raw: Tensor,
    target: Tensor,
    phi: Tensor,
    output: Output,
    steps: int,
    lr: float,
) -> Tensor:
    """Raw predictions (P, B, C) after `steps` of Adam on each loss, from raw (B, C)."""
    y = target.double()

    def slope(free: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = free.detach().requires_grad_()
            total = values(population, transform(leaf, output), y, phi).sum()
            return torch.autograd.grad(total, leaf, materialize_grads=True)[0]

    return minimised(raw, len(population), slope, steps, lr)


def _leaves(population: LossPopulation, prediction: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    full = prediction.detach().expand(len(population), *prediction.shape[1:]).contiguous()
    return full.requires_grad_(), phi.detach().clone().requires_grad_()


def _gradients(value: Tensor, f: Tensor, phi: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    found = torch.autograd.grad(value, (f, phi), create_graph=keep, materialize_grads=True)
    return found[0], found[1]
