"""The minibatches of a method, the same as those of a loss, and its likelihood on what is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evoloss.unlearn.log_probs import token_log_probs
from evoloss.unlearn.objective import minibatches
from evoloss.unlearn.rivals.rival import Context


class Minibatches:
    """forget, retain: (steps, B) the rows of each step; retain is None without a retain set."""

    def __init__(self, context: Context) -> None:
        sets, batch, steps = context.sets, context.batch, context.steps
        self.sets = sets
        self.forget, self.retain = minibatches(sets, batch, steps, context.rng)

    def retain_nll(self, model: nn.Module, step: int, copies: int) -> Tensor:
        """(copies,) mean over the answer tokens of a retain minibatch; 0 without a retain set."""
        if self.sets.retain is None or self.retain is None:
            return torch.zeros(copies, device=self.sets.forget.reference.device)
        data = self.sets.retain.data.rows(self.retain[step])
        summed = token_log_probs(model, data, copies).view(copies, -1).sum(1)
        return -summed / data.answer.sum()
