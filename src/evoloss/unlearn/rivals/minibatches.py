"""The minibatches of a method, the same as those of a loss, and its likelihood on what is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evoloss.unlearn.log_probs import token_log_probs
from evoloss.unlearn.objective import minibatches, orders
from evoloss.unlearn.rivals.rival import Context


class Minibatches:
    """forget, retain: (steps, B) the rows of each step; retain is None without a retain set."""

    def __init__(self, context: Context) -> None:
        sets, batch, steps = context.sets, context.batch, context.steps
        self.sets = sets
        self.forget, self.retain = minibatches(sets, batch, steps, context.rng)
        self.orders = orders(sets, self.forget, self.retain)

    def retain_nll(self, model: nn.Module, step: int, copies: int) -> Tensor:
        """(copies,) mean over the answer tokens of a retain minibatch; 0 without a retain set."""
        if "retain" not in self.orders:
            return torch.zeros(copies, device=self.sets.forget.reference.device)
        part, extent = self.orders["retain"][step]
        summed = token_log_probs(model, part.data, copies, extent).view(copies, -1).sum(1)
        return -summed / part.data.answer.sum()
