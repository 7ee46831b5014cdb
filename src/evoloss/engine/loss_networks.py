"""Loss networks whose weights φ are tuned: batched matrix products, derivatives by hand.

For fixed signs of its hidden units the network is linear: s = w₃ D₂ W₂ D₁ W₁ x with x = (y, f), the
loss its softplus. Backwards, the first layer's adjoint holds ∂s/∂x; and the derivative in φ of
Σ c s(x) + ⟨∂s/∂x, d⟩ is that of one pass of c x + d through the same signs, whatever the number of
points. So the mixed derivative costs three products of (P, M, 50) by (P, 50, 50), no graph.

Points with y = 0, most of a one-hot target, lie on two rays, on each of which the signs are the
same: one point of a ray is passed for all of them.

Shapes as in `LossPopulation`; M = B·C points, N = 2,650.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.engine.outputs import push_forward, transform
from evoloss.lang.network_form import matrices, torch_losses
from evoloss.lang.types import Output

_RAYS = ((0.0, 1.0), (0.0, -1.0))


def values(prediction: Tensor, target: Tensor, phi: Tensor) -> Tensor:
    """(P,) values with a graph."""
    f = prediction.expand(len(phi), *target.shape)
    x = torch.stack([target.to(f).expand_as(f), f], dim=-1).flatten(1, 2)
    return torch_losses(x, phi.to(x)).sum(1) / len(target)


def gradient(raw: Tensor, target: Tensor, phi: Tensor, output: Output) -> Tensor:
    """(P, B, C) gradient in the raw prediction, through the output transform."""
    f = transform(raw, output)
    passed = _Pass.of(f, target, phi)
    slope = passed.s.sigmoid() * passed.by_f / len(target)
    return push_forward(f, slope.view(-1, *target.shape), output)


def curvature(
    prediction: Tensor, target: Tensor, phi: Tensor, along: Tensor
) -> tuple[Tensor, Tensor]:
    """The Hessian times a direction (P, B, C) in the prediction: (P, B, C) and (P, N)."""
    passed = _Pass.of(prediction, target, phi)
    w = along.flatten(1) / len(target)
    slope = passed.s.sigmoid()
    bend = slope * (1.0 - slope) * passed.by_f * w
    by_phi = passed.by_phi(bend * passed.y, bend * passed.f + slope * w)
    return (bend * passed.by_f).view(along.shape), by_phi.to(phi)


@dataclass(frozen=True)
class _Pass:
    """One pass forwards and back. R: the points with a target other than 0.

    y: (M,); f: (P, M); rest: (R,) and zero: (M − R,) numbers of points; matrices: of the networks,
    (P, out, in); signs: (P, R + 2, 50) whether a unit of the first and of the second layer is
    above zero; adjoint: (P, R + 2, 50) of the first layer; s, by_f: (P, M) the output before the
    softplus and its slope in f.
    """

    y: Tensor
    f: Tensor
    rest: Tensor
    zero: Tensor
    matrices: tuple[Tensor, Tensor, Tensor]
    signs: tuple[Tensor, Tensor]
    adjoint: Tensor
    s: Tensor
    by_f: Tensor

    @classmethod
    def of(cls, prediction: Tensor, target: Tensor, phi: Tensor) -> _Pass:
        f = prediction.expand(len(phi), *target.shape).flatten(1)
        y = target.to(f).flatten()
        rest, zero = (y != 0.0).nonzero()[:, 0], (y == 0.0).nonzero()[:, 0]
        x = torch.stack([y[rest].expand(len(f), -1), f[:, rest]], dim=-1)
        x = torch.cat([x, x.new_tensor(_RAYS).expand(len(x), 2, 2)], dim=1)
        first, second, third = matrices(phi.to(f))
        one = (x @ first.mT).relu_()
        two = (one @ second.mT).relu_()
        signs = (one > 0.0).to(x), (two > 0.0).to(x)
        adjoint = signs[0] * ((signs[1] * third) @ second)
        own = (two @ third.mT)[..., 0], (adjoint @ first[..., 1:])[..., 0]
        s, by_f = torch.empty_like(f), torch.empty_like(f)
        s[:, rest], by_f[:, rest] = own[0][:, :-2], own[1][:, :-2]
        on_rays = f[:, zero]
        up, down = (on_rays > 0.0).to(f), (on_rays < 0.0).to(f)
        by_f[:, zero] = up * own[1][:, -2:-1] + down * own[1][:, -1:]
        s[:, zero] = by_f[:, zero] * on_rays
        return cls(y, f, rest, zero, (first, second, third), signs, adjoint, s, by_f)

    def by_phi(self, y: Tensor, f: Tensor) -> Tensor:
        """(P, N) derivatives of the sum of outputs that (y, f), (P, M), gives under these signs."""
        on_rays, where = f[:, self.zero], self.f[:, self.zero]
        rays = [(on_rays * (where * sign > 0.0)).sum(1, keepdim=True) for _, sign in _RAYS]
        along_f = torch.cat([f[:, self.rest], *rays], dim=1)
        along_y = torch.nn.functional.pad(y[:, self.rest], (0, len(_RAYS)))
        x = torch.stack([along_y, along_f], dim=-1)
        first, second, third = self.matrices
        one = self.signs[0] * (x @ first.mT)
        together = self.signs[1].mT @ one
        parts = (self.adjoint.mT @ x, third.mT * together, (second * together).sum(-1))
        return torch.cat([each.flatten(1) for each in parts], dim=1)
