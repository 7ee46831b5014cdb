"""Hyper-gradients of the weights φ by differentiating through training steps (Bechtle et al. 2021).

One step needs no second derivative of the network and keeps no graph; more steps run the adjoint
recursion backwards, one step's graph at a time. Either way memory does not grow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.loss_population import values
from evoloss.engine.outputs import push_forward, transform
from evoloss.local_search.inner import Batch, Inner, sgd_step, task_gradient


def hypergradient(
    inner: Inner,
    theta: Tensor,
    batches: Sequence[Batch],
    validation: Batch,
    phi: Tensor,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """The exact `HyperGradient`; it draws no random numbers."""
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
    v = task_gradient(inner, stepped, validation)
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
    states = [(theta.expand(len(phi), -1), theta.new_zeros(len(phi), theta.shape[1]))]
    for batch in batches:
        with torch.no_grad():
            states.append(sgd_step(inner, batch, *states[-1], phi))
    adjoint = task_gradient(inner, states[-1][0], validation)
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
