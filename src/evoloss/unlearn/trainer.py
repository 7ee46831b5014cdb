"""Trains the adapters of several candidates side by side, from one step to another.

AdamW (Loshchilov & Hutter 2019) with a schedule and gradient clipping, each for one candidate
alone: what a candidate becomes does not depend on who trains beside it, so that the
candidates of a race may be put together anew at each of its stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evoloss.unlearn.adapters import Adapters, LoraSettings, attached
from evoloss.unlearn.objective import Objective
from evoloss.unlearn.schedule import Schedule


@dataclass(frozen=True)
class Progress:
    """Where the training of one candidate stands after so many steps.

    weights: of its adapter, under `peft`'s names; moments: AdamW's, of each weight.
    fine: whether all gradients so far were finite; if not, it was not moved any further.
    moved: the largest weight of B, 0 for an adapter that is still what it began as.
    """

    weights: dict[str, Tensor]
    moments: tuple[tuple[Tensor, Tensor], ...]
    step: int = 0
    fine: bool = True
    moved: float = 0.0


def begin(model: nn.Module, lora: LoraSettings, seed: int) -> Progress:
    """A new adapter, which leaves the model as it is."""
    with attached(model, 1, lora) as adapters:
        adapters.reset(seed)
        blank = [torch.zeros_like(each[0], device="cpu") for each in adapters.parameters]
        return Progress(adapters.states()[0], tuple((each, each) for each in blank))


def advance(
    model: nn.Module,
    lora: LoraSettings,
    objective: Objective,
    schedules: Sequence[Schedule],
    standing: Sequence[Progress],
    running: Sequence[int],
    end: int,
) -> list[Progress]:
    """Trains the running candidates on, to the step `end`, in one batch.

    schedules: of all candidates of the objective; standing: of those that run, all at one step.
    """
    with attached(model, len(running), lora) as adapters:
        adapters.load([each.weights for each in standing])
        chosen = [schedules[candidate] for candidate in running]
        optimiser = _AdamW(adapters, chosen, standing, end)
        for step in range(standing[0].step, end):
            loss = objective.values(model, step, running).sum()
            # A loss that hears nothing of the model has no gradient: its adapter stands still.
            gradients = (
                torch.autograd.grad(loss, adapters.parameters, materialize_grads=True)
                if loss.requires_grad
                else [torch.zeros_like(each) for each in adapters.parameters]
            )
            optimiser.update(gradients, step)
        return optimiser.standing(end)


class _AdamW:
    """One step for all candidates at once; each is clipped, and stopped, for itself.

    The numbers of a candidate are one row of D, whatever tensors they belong to, and what the steps
    need is on the device before the first: an adapter has hundreds of small tensors, and on a GPU
    it is the number of operations that costs, and every number that is fetched.
    """

    def __init__(
        self,
        adapters: Adapters,
        schedules: Sequence[Schedule],
        standing: Sequence[Progress],
        end: int,
    ) -> None:
        """end: the last step, from those of `standing` on, which are at one step."""
        self.adapters = adapters
        self.parameters = adapters.parameters
        self.widths = [each[0].numel() for each in self.parameters]
        self.begin = standing[0].step
        device = self.parameters[0].device
        moments = [
            torch.stack([_row(pair[which] for pair in each.moments) for each in standing])
            for which in (0, 1)
        ]
        self.m, self.v = (each.to(device) for each in moments)
        self.fine = torch.tensor([each.fine for each in standing], device=device)
        self.clip = torch.tensor([each.clip for each in schedules], device=device)
        self.decay = torch.tensor([[each.weight_decay] for each in schedules], device=device)
        steps = range(self.begin, end)
        self.rates = torch.tensor(
            [[each.rate(step) for each in schedules] for step in steps], device=device
        )
        self.lasting = torch.tensor(
            [[step < each.steps for each in schedules] for step in steps], device=device
        )
        self.decays = any(each.weight_decay for each in schedules)

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor], step: int) -> None:
        """Moves every candidate whose gradient is finite and whose schedule is not over."""
        g = _rows(gradients)
        squares = g.float().square().split(self.widths, 1)
        norm = torch.stack([each.sum(1) for each in squares]).sum(0).sqrt()
        rates = self.rates[step - self.begin]
        self.fine &= torch.isfinite(norm)
        factor = torch.where(self.fine, (self.clip / norm.clamp(min=1e-6)).clamp(max=1.0), 0.0)
        moving = (self.fine & self.lasting[step - self.begin])[:, None]
        correct1, correct2 = 1.0 - 0.9 ** (step + 1), 1.0 - 0.999 ** (step + 1)
        g = torch.where(moving, g * factor[:, None], 0.0)
        self.m.lerp_(g, 0.1)
        self.v.mul_(0.999).addcmul_(g, g, value=0.001)
        change = self.m / correct1 / ((self.v / correct2).sqrt() + 1e-8)
        if self.decays:
            change = change + self.decay * _rows(self.parameters)
        move = torch.where(moving, rates[:, None] * change, 0.0).split(self.widths, 1)
        for p, each in zip(self.parameters, move, strict=True):
            p.sub_(each.view_as(p))

    def standing(self, step: int) -> list[Progress]:
        """What each candidate has become."""
        moved, fine = self.adapters.moved().tolist(), self.fine.tolist()
        m, v = (self._parted(each.cpu()) for each in (self.m, self.v))
        return [
            Progress(weights, tuple(zip(m[copy], v[copy], strict=True)), step, fine[copy],
                     moved[copy])
            for copy, weights in enumerate(self.adapters.states())
        ]  # fmt: skip

    def _parted(self, rows: Tensor) -> list[list[Tensor]]:
        """Each row as tensors of the parameters' shapes, with memory of their own."""
        return [
            [
                part.view(p.shape[1:]).clone()
                for part, p in zip(row.split(self.widths), self.parameters, strict=True)
            ]
            for row in rows
        ]


def _row(tensors: Iterable[Tensor]) -> Tensor:
    """(D,) the numbers of one candidate."""
    return torch.cat([each.flatten() for each in tensors])


def _rows(tensors: Sequence[Tensor]) -> Tensor:
    """(K, D) the numbers of each candidate."""
    return torch.cat([each.flatten(1) for each in tensors], 1)
