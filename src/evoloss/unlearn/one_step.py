"""Slopes of a validation objective, after one training step, in the constants of the losses.

The step is the one that training takes: AdamW's, from the moments that it has by then. Its slope is
the hyper-gradient through the step (Bechtle et al. 2021, eq. 5), or what evolution strategies
(Salimans et al. 2017) make of the outcomes of perturbed steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from evoloss.errors import UserError
from evoloss.unlearn.adapters import LoraSettings, attached
from evoloss.unlearn.constants import Tunables
from evoloss.unlearn.objective import Batch, LossObjective
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.trainer import Progress, advance


@dataclass(frozen=True)
class OneStep:
    """The training step that K candidates take next, and what it is judged by.

    validation: minibatches to judge on; floor: see `judgement`. standing: all at one step.
    """

    model: nn.Module
    lora: LoraSettings
    losses: Tunables
    validation: LossObjective
    floor: float
    schedules: Sequence[Schedule]
    standing: Sequence[Progress]

    @property
    def step(self) -> int:
        """How many have been taken before."""
        return self.standing[0].step

    def taken(self, rho: Tensor) -> list[Progress]:
        """Where candidates stand after the step, with these constants."""
        return self._at(self.step + 1, replace(self.losses, rho=rho))

    def moved_on(self, step: int) -> OneStep:
        """The same at a later step of the trainings, or at this one."""
        return self if step == self.step else replace(self, standing=self._at(step, self.losses))

    def _at(self, end: int, losses: Tunables) -> list[Progress]:
        return advance(
            self.model, self.lora, losses, self.schedules, self.standing, range(len(losses)), end
        )

    def judged(self, model: nn.Module) -> Tensor:
        """(K,) the validation objective of a model with the adapters of all, lower is better."""
        batches = self.validation.inputs(model, self.step, len(self.losses))
        return torch.stack([judgement(batch, self.floor) for batch in batches])


def judgement(batch: Batch, floor: float) -> Tensor:
    """A differentiable stand-in for the selection's `balance`, lower is better, −1 at best.

    The negative mean of two shares: of the forget set's probability, what is gone of the part above
    the floor, at most 1; and of the retain set's, what is left, where an answer that has become
    likelier than it was does not make up for another. So there is no reward for driving the former
    below the floor or the latter above the reference. Without a retain set, the former alone.

    Not their harmonic mean, as in `balance`: as long as nothing is forgotten its slope says that
    keeping is worth nothing. At its best, where a training is to end, both count the same.

    floor: the forget set's probability under a model that never saw it, relative to the original's;
    below 1, or nothing is above it that could be gone.
    """
    now, before = batch["forget"].means("forget").values()
    gone = (1.0 - now.exp().mean() / before.exp().mean()) / (1.0 - floor)
    gone = gone.clamp(max=1.0)
    if "retain" not in batch:
        return -gone
    now, before = batch["retain"].means("retain").values()
    kept = (now - before).clamp(max=0.0).mean().exp()
    return -(gone + kept) / 2.0


def hypergradient(problem: OneStep, rho: Tensor) -> Tensor:
    """(K, N) gradient of the validation objective after the step with respect to ρ.

    With θ₁ = θ − D Jᵀ G(ρ) + …, G the gradient of the loss in the log-probabilities and J that of
    the log-probabilities in θ:  dL/dρ = −∂/∂ρ ⟨G(ρ), J D v⟩, v = ∂L/∂θ₁. Exact for a step whose
    scaling D (clipping and second moment) is held: AdamW's very first step is the sign of the
    gradient, and has no slope otherwise. One forward-mode product takes the place of the network's
    second derivatives.

    Raises: UserError if the model has an operation without a forward-mode derivative.
    """
    count = len(problem.losses)
    rho = rho.detach().requires_grad_()
    losses = replace(problem.losses, rho=rho)
    with attached(problem.model, count, problem.lora) as adapters:
        adapters.load([each.weights for each in problem.standing])
        theta = [each.detach() for each in adapters.parameters]
        names = _names(problem.model, adapters.parameters)
        batches = losses.batches.inputs(problem.model, problem.step, count)
        leaves = [_leaves(each) for each in batches]
        by_log_probs = torch.autograd.grad(
            losses.of(leaves, range(count)).sum(), _log_probs(leaves),
            create_graph=True, materialize_grads=True,
        )  # fmt: skip
        gradient = torch.autograd.grad(
            _log_probs(batches), adapters.parameters, [each.detach() for each in by_log_probs],
            materialize_grads=True,
        )  # fmt: skip
        stepped, scaling = _look_ahead(problem, theta, gradient)
        judged = problem.judged(_Moved(problem.model, names, stepped))
        v = torch.autograd.grad(judged.sum(), stepped, materialize_grads=True)
        direction = [d * each for d, each in zip(scaling, v, strict=True)]
        # Fused attention has no forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level(), _forward():
            duals = [forward_ad.make_dual(*each) for each in zip(theta, direction, strict=True)]
            moved = _Moved(problem.model, names, duals)
            seen = _log_probs(losses.batches.inputs(moved, problem.step, count))
            pushed = [forward_ad.unpack_dual(each).tangent for each in seen]
    product = sum((g * w).sum() for g, w in zip(by_log_probs, pushed, strict=True))
    # The second term is there for losses whose gradients depend on none of their constants.
    (slope,) = torch.autograd.grad(0.0 * rho.sum() - product.to(rho), rho)
    return slope


@contextmanager
def _forward() -> Iterator[None]:
    """Raises: UserError where torch has no forward-mode derivative, as of BLOOM's activation."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            "the model has an operation without a forward-mode derivative: tune constants with "
            "--local-search es, or not at all"
        ) from error


def _look_ahead(
    problem: OneStep, theta: Sequence[Tensor], gradient: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """θ after AdamW's step, as leaves, and what the gradient is multiplied by in it."""
    step, first = problem.step, theta[0]
    norm = torch.stack([each.square().flatten(1).sum(1) for each in gradient]).sum(0).sqrt()
    clip = first.new_tensor([each.clip for each in problem.schedules])
    rate = first.new_tensor([each.rate(step) for each in problem.schedules])
    factor = (clip / norm.clamp(min=1e-6)).clamp(max=1.0)[:, None, None]
    rate = (rate / (1.0 - 0.9 ** (step + 1)))[:, None, None]
    stepped, scaling = [], []
    for at, (p, g) in enumerate(zip(theta, gradient, strict=True)):
        m, v = (
            torch.stack([each.moments[at][which] for each in problem.standing]).to(p)
            for which in (0, 1)
        )
        v = 0.999 * v + 0.001 * (factor * g).square()
        pace = rate / ((v / (1.0 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        stepped.append((p - pace * (0.9 * m + 0.1 * factor * g)).requires_grad_())
        scaling.append(0.1 * factor * pace)
    return stepped, scaling


def _names(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str]:
    found = {id(each): name for name, each in model.named_parameters()}
    return [found[id(each)] for each in parameters]


def _leaves(batch: Batch) -> Batch:
    return {
        side: replace(rows, log_probs=rows.log_probs.detach().requires_grad_())
        for side, rows in batch.items()
    }


def _log_probs(batches: Sequence[Batch]) -> list[Tensor]:
    return [rows.log_probs for batch in batches for rows in batch.values()]


class _Moved(nn.Module):
    """A model with other tensors in place of some parameters, for as long as it is called."""

    def __init__(self, model: nn.Module, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.tensors = dict(zip(names, tensors, strict=True))

    def forward(self, **inputs: Any) -> Any:
        return functional_call(self.model, self.tensors, (), inputs)


def evolution_slope(
    problem: OneStep, rho: Tensor, pairs: int, sigma: float, rng: np.random.Generator
) -> Tensor:
    """(K, N) mean over antithetic pairs of ε (L(ρ + σε) − L(ρ − σε)) / 2σ.

    ε is the same for all losses, drawn constant by constant so that it does not depend on how many
    the others have. A pair of which one step breaks down is left out; the row is NaN if all are.
    """
    drawn = torch.from_numpy(rng.standard_normal((rho.shape[1], pairs))).T
    rises = []
    for epsilon in drawn:
        move = sigma * epsilon * problem.losses.free
        above, below = (_outcome(problem, rho + sign * move) for sign in (1.0, -1.0))
        rises.append((above - below)[:, None] / (2.0 * sigma) * epsilon)
    return torch.stack(rises).nanmean(0)


def _outcome(problem: OneStep, rho: Tensor) -> Tensor:
    """(K,) the validation objective after the step; NaN where it cannot be taken."""
    after = problem.taken(rho)
    with attached(problem.model, len(after), problem.lora) as adapters, torch.no_grad():
        adapters.load([each.weights for each in after])
        found = problem.judged(problem.model).to(rho)
    return torch.where(torch.tensor([each.fine for each in after]), found, torch.nan)
