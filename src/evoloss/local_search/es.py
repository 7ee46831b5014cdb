"""Slopes in the weights φ by antithetic evolution strategies (Salimans et al. 2017).

Neither the inner training nor the task loss is differentiated in φ: the estimate is that of the
gradient of T smoothed by a Gaussian, from the outcomes of trainings under φ ± σε (Vicol et al.
2021, section 3). All trainings share initial weights and minibatches, so pairs differ by φ alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.loss_population import LossPopulation
from evoloss.local_search.inner import Batch, Inner, task_loss, trained

_BYTES = 16 * 2**20
"""Of θ at a time: a small network trains all its copies side by side, a large one pair by pair."""


@dataclass(frozen=True)
class EvolutionStrategies:
    """The `HyperGradient` from `pairs` of trainings under φ + σε and φ − σε."""

    pairs: int = 8
    sigma: float = 0.05

    def __call__(
        self,
        inner: Inner,
        theta: Tensor,
        batches: Sequence[Batch],
        validation: Batch,
        phi: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """The mean over pairs of ε (T(φ + σε) − T(φ − σε)) / 2σ, (P, N).

        A pair of which one training breaks down is left out; the row is NaN if all are.
        """

        def rise(epsilon: Tensor) -> Tensor:
            """(T(φ + σε) − T(φ − σε)) / 2σ for ε (pairs, P, N), (pairs, P)."""
            moves = self.sigma * torch.cat([epsilon, -epsilon])
            many = _side_by_side(inner, len(moves))
            reached = trained(many, theta, batches, (phi + moves).flatten(0, 1))
            outcomes = task_loss(many, reached, validation).to(phi).view(len(moves), len(phi))
            above, below = outcomes.chunk(2)
            return (above - below) / (2 * self.sigma)

        a_pair = 2 * len(phi) * theta.numel() * theta.element_size()
        epsilon = _directions(inner.losses, phi, self.pairs, rng)
        parts = epsilon.split(max(1, _BYTES // a_pair))
        rises = torch.cat([rise(part) for part in parts])[:, :, None]
        return torch.where(rises.isfinite(), rises * epsilon, torch.nan).nanmean(0)


def _directions(
    losses: LossPopulation, phi: Tensor, pairs: int, rng: np.random.Generator
) -> Tensor:
    """ε (pairs, P, N), the same for all losses, zero in the padding.

    Drawn weight by weight, so that a loss has the same ε whatever the width of the others.
    """
    drawn = torch.from_numpy(rng.standard_normal((phi.shape[1], pairs))).to(phi)
    weights = torch.from_numpy(losses.programs.weights).to(phi.device)
    used = torch.arange(phi.shape[1], device=phi.device) < weights[:, None]
    return drawn.T[:, None] * used


@lru_cache(maxsize=2)  # flattening the losses takes longer than a step; the last part is smaller
def _side_by_side(inner: Inner, times: int) -> Inner:
    """The inner problem with all its P losses so many times over."""
    losses, usual = (
        LossPopulation(each.expressions * times, each.weights, each.backend)
        for each in (inner.losses, inner.usual)
    )
    return replace(inner, losses=losses, usual=usual)
