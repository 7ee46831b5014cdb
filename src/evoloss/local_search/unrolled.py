"""Hyper-gradients of the weights φ by differentiating through training steps (Bechtle et al. 2021).

One step needs no second derivative of the network and keeps no graph; more steps run the adjoint
recursion backwards, one step's graph at a time. Either way memory does not grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.engine.loss_population import LossPopulation, values
from evoloss.engine.optimisers import SGD
from evoloss.engine.outputs import push_forward, transform
from evoloss.engine.stack import Stack
from evoloss.lang.types import Output

Batch = tuple[Tensor, Tensor]
"""Inputs (B, …) and targets (B, C)."""


@dataclass(frozen=True)
class Inner:
    """What the inner training consists of, and the task loss that judges its outcome.

    losses: P learned losses; usual: the task loss, P times; output: the output transform.
    """

    stack: Stack
    losses: LossPopulation
    usual: LossPopulation
    output: Output
    sgd: SGD


def hypergradient(
    inner: Inner, theta: Tensor, batches: Sequence[Batch], validation: Batch, phi: Tensor
) -> Tensor:
    """Gradient in φ of the validation task loss after one SGD step per batch, from θ (1, D).

    phi: (P, N). Returns: (P, N) float64, zero in the padding.
    """
    if len(batches) == 1:
        return one_step_hypergradient(inner, theta, batches[0], validation, phi)
    return unrolled_hypergradient(inner, theta, batches, validation, phi)


def one_step_hypergradient(
    inner: Inner, theta: Tensor, batch: Batch, validation: Batch, phi: Tensor
) -> Tensor:
    """The exact hyper-gradient of one step, rearranged to first derivatives of the network.

    With θ₁ = θ₀ − α Jᵀ G(φ) and v = ∂T/∂θ₁,  dT/dφ = −α ∂/∂φ ⟨G(φ), J v⟩: one forward-mode
    product J v and the mixed derivative of the loss (Bechtle et al. 2021, eq. 5). Momentum from
    rest scales the step; weight decay adds a term without φ.
    """
    x, y = batch
    raw, pullback = inner.stack.pull(theta, x)
    step = pullback(inner.losses.gradient(raw, y, phi, inner.output))
    stepped = inner.sgd.first_step(theta, step)
    v = _task_gradient(inner, stepped, validation)
    f = transform(raw, inner.output)
    w = push_forward(f, inner.stack.push(theta, x, v), inner.output)
    _, mixed = inner.losses.curvature(f, y, phi, w)
    return -inner.sgd.lr * inner.sgd.first_step_factor * mixed


def unrolled_hypergradient(
    inner: Inner, theta: Tensor, batches: Sequence[Batch], validation: Batch, phi: Tensor
) -> Tensor:
    """The exact hyper-gradient of K steps: adjoints of θ and the velocity, backwards in time.

    Only the states are kept on the way forward; each step is done again, with a graph, on the
    way back.
    """
    states = [(theta.expand(len(phi), -1), torch.zeros(len(phi), theta.shape[1]).to(theta))]
    for batch in batches:
        with torch.no_grad():
            now, velocity = states[-1]
            x, y = batch
            raw, pullback = inner.stack.pull(now, x)
            slope = inner.losses.gradient(raw, y, phi, inner.output)
            states.append(inner.sgd.update(now, pullback(slope), velocity))
    adjoint = _task_gradient(inner, states[-1][0], validation)
    adjoint_velocity = torch.zeros_like(adjoint)
    total = torch.zeros_like(phi)
    for batch, (now, velocity) in zip(reversed(batches), reversed(states[:-1]), strict=True):
        leaves = [each.detach().requires_grad_() for each in (now, velocity, phi)]
        with torch.enable_grad():
            stepped, moved = _differentiable_step(inner, batch, *leaves)
            inner_product = (stepped * adjoint).sum() + (moved * adjoint_velocity).sum()
        adjoint, adjoint_velocity, by_phi = torch.autograd.grad(
            inner_product, leaves, materialize_grads=True
        )
        total += by_phi
    return total


def _differentiable_step(
    inner: Inner, batch: Batch, theta: Tensor, velocity: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor]:
    x, y = batch
    f = transform(inner.stack.forward(theta, x), inner.output)
    loss = values(inner.losses, f, y, phi).sum()
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    return inner.sgd.update(theta, gradient, velocity)


def _task_gradient(inner: Inner, theta: Tensor, validation: Batch) -> Tensor:
    """v = ∂T/∂θ (P, D), each copy's task loss on the validation batch."""
    x, y = validation
    raw, pullback = inner.stack.pull(theta, x)
    return pullback(inner.usual.gradient(raw, y, inner.usual.initial_phi(), inner.output))
