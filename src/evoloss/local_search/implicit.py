"""Hyper-gradients of the weights φ by the implicit function theorem (Lorraine et al. 2020).

Where the inner training has come to rest, ∂L/∂θ = 0 makes θ a function of φ and
dT/dφ = −∂T/∂θ (H + λI)⁻¹ ∂²L/∂φ∂θ: memory and time do not grow with the steps that led there. The
inverse is applied by conjugate gradients (Rajeswaran et al. 2019) or by a Neumann series, both on
Hessian-vector products of all copies at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.loss_population import values
from evoloss.engine.outputs import transform
from evoloss.local_search.inner import Batch, Inner, task_gradient, trained

Product = Callable[[Tensor], Tensor]
"""A ↦ A u, row by row of u (P, D), with a symmetric A for each row."""

_TOLERANCE = 1e-6
"""Conjugate gradients stop where the residual is this share of v."""


@dataclass(frozen=True)
class Implicit:
    """The `HyperGradient` at the θ that the inner training reaches.

    solver: `cg` or `neumann`; terms: Hessian-vector products at most; damping: λ, which bounds the
    inverse by 1/λ where H is flat. H is of the last batch, and includes the weight decay.
    """

    solver: str = "cg"
    terms: int = 10
    damping: float = 0.1

    def __call__(
        self,
        inner: Inner,
        theta: Tensor,
        batches: Sequence[Batch],
        validation: Batch,
        phi: Tensor,
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """−∂T/∂θ (H + λI)⁻¹ ∂²L/∂φ∂θ, (P, N)."""
        reached = trained(inner, theta, batches, phi)
        v = task_gradient(inner, reached, validation)
        leaves = reached.requires_grad_(), phi.detach().requires_grad_()
        with torch.enable_grad():
            slope = _slope(inner, batches[-1], *leaves)
            # The derivative of this in θ is H + λI.
            slope = slope + (inner.sgd.weight_decay + self.damping) * leaves[0]

        def pulled(u: Tensor, leaf: Tensor) -> Tensor:
            """u ∂slope/∂leaf."""
            return torch.autograd.grad(
                slope, leaf, u, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]

        def product(u: Tensor) -> Tensor:
            return pulled(u, leaves[0])

        if self.solver == "cg":
            u = conjugate_gradients(product, v, self.terms, self.damping / 2)
        else:
            u = neumann(product, v, self.terms, inner.sgd.lr)
        return -pulled(u, leaves[1])


def _slope(inner: Inner, batch: Batch, theta: Tensor, phi: Tensor) -> Tensor:
    """∂L/∂θ (P, D) with a graph."""
    x, y = batch
    f = transform(inner.stack.forward(theta, x), inner.output)
    loss = values(inner.losses, f, y, phi).sum()
    return torch.autograd.grad(loss, theta, create_graph=True)[0]


def conjugate_gradients(product: Product, v: Tensor, terms: int, least: float = 0.0) -> Tensor:
    """u ≈ A⁻¹ v for each row (Hestenes & Stiefel 1952). v, u: (P, D).

    Each row stops for itself: when it is solved, at a direction whose curvature per unit length is
    not above `least`, and at one that is not finite. A row that stops at its first direction has
    u = v, as in truncated Newton methods (Nocedal & Wright 2006, algorithm 7.1).
    """
    u, residual, direction = v, v, v
    length = _dot(v, v)
    goal = _TOLERANCE**2 * length
    running = torch.ones_like(length, dtype=torch.bool)
    for number in range(terms):
        image = product(direction)
        curvature = _dot(direction, image)
        running = running & (curvature > least * _dot(direction, direction)) & curvature.isfinite()
        step = length / curvature
        # Of a row that has stopped only u is kept: what follows may be NaN there.
        u = torch.where(running, (u if number else 0.0) + step * direction, u)
        residual = residual - step * image
        before, length = length, _dot(residual, residual)
        running = running & (length > goal)
        if not running.any():
            break
        direction = residual + length / before * direction
    return u


def neumann(product: Product, v: Tensor, terms: int, rate: float) -> Tensor:
    """u = rate Σ_j (I − rate A)^j v for each row, j < terms: A⁻¹ v where all terms are summed.

    As the rate is the base network's, this is the hyper-gradient of so many more steps of plain
    SGD on the same batch. A is symmetric, so a term longer than the one before is the mark of a
    series that diverges: there the row stops.
    """
    term = total = v
    running = torch.ones(len(v), 1, dtype=torch.bool, device=v.device)
    for _ in range(terms - 1):
        following = term - rate * product(term)
        running = running & (_dot(following, following) <= _dot(term, term))
        if not running.any():
            break
        total = torch.where(running, total + following, total)
        term = following
    return rate * total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(P, 1) products of rows."""
    return (a * b).sum(1, keepdim=True)
