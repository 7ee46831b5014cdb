"""Unlearning: the adapters of many losses trained side by side on the same minibatches.

One step takes a minibatch of the forget and one of the retain set through the model once for all
candidates; each candidate's loss sees its own log-probabilities, and its gradient reaches its own
adapters only. AdamW with a linear schedule and gradient clipping, each for one candidate alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from evoloss.lang.evaluate import torch_value
from evoloss.lang.expr import Expr
from evoloss.unlearn.adapters import Adapters


@dataclass(frozen=True)
class Sequences:
    """Tokenised examples, padded at the end. All (N, T).

    tokens: ids; attention: 1 where there is a token; answer: 1 where a token is to be predicted,
    that is on the answer and its end.
    """

    tokens: Tensor
    attention: Tensor
    answer: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Tensor) -> Sequences:
        """Some of them, without the columns that are padding in all of these."""
        attention = self.attention[index]
        width = int(attention.sum(1).max())
        return Sequences(
            self.tokens[index, :width], attention[:, :width], self.answer[index, :width]
        )


@dataclass(frozen=True)
class Schedule:
    """How adapters are trained; the defaults are EvoMU's.

    steps: of the optimiser, the same for every candidate; batch: sequences of each set a step.
    clip: the largest norm of a candidate's gradient. The rate falls linearly to 0.
    """

    steps: int = 60
    batch: int = 8
    lr: float = 5e-4
    clip: float = 1.0
    weight_decay: float = 0.0


def token_log_probs(model: nn.Module, part: Sequences, copies: int = 1) -> Tensor:
    """(copies · N, T) log-probability of each answer token, 0 elsewhere; candidate by candidate."""
    tokens, attention = (each.repeat(copies, 1) for each in (part.tokens, part.attention))
    logits = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
    found = logits[:, :-1].float().log_softmax(-1)
    chosen = found.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    shifted = torch.cat([chosen.new_zeros(len(chosen), 1), chosen], dim=1)
    return shifted * part.answer.repeat(copies, 1)


def mean_log_probs(model: nn.Module, part: Sequences, copies: int = 1) -> Tensor:
    """(copies, N) mean log-probability of each answer's tokens."""
    summed = token_log_probs(model, part, copies).sum(1)
    return summed.view(copies, -1) / part.answer.sum(1)


@torch.no_grad()
def reference(model: nn.Module, data: Sequences, batch: int = 16) -> Tensor:
    """(N,) mean log-probabilities under the model as it is, before any adapter."""
    index = torch.arange(len(data))
    return torch.cat([mean_log_probs(model, data.rows(part))[0] for part in index.split(batch)])


@dataclass(frozen=True)
class Sets:
    """What is unlearned and what is kept, each with the reference log-probabilities (N,)."""

    forget: Sequences
    retain: Sequences
    ref_forget: Tensor
    ref_retain: Tensor


def batches(rows: int, batch: int, steps: int, rng: np.random.Generator) -> Tensor:
    """(steps, min(batch, rows)) row numbers: shuffled passes, one after the other."""
    size = min(batch, rows)
    a_pass = rows // size
    order = [
        rng.permutation(rows)[: a_pass * size].reshape(a_pass, size)
        for _ in range(math.ceil(steps / a_pass))
    ]
    return torch.from_numpy(np.concatenate(order)[:steps])


def train(
    model: nn.Module,
    adapters: Adapters,
    losses: Sequence[Expr],
    sets: Sets,
    schedule: Schedule,
    rng: np.random.Generator,
    tick: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Trains one adapter a loss, in place; returns (K,) whether each stayed finite.

    rng: of the minibatches, which all candidates share.
    """
    optimiser = _AdamW(adapters.parameters, schedule)
    fine = torch.ones(len(losses), dtype=torch.bool)
    forget = batches(len(sets.forget), schedule.batch, schedule.steps, rng)
    retain = batches(len(sets.retain), schedule.batch, schedule.steps, rng)
    for step, (f, r) in enumerate(zip(forget, retain, strict=True)):
        inputs = {
            "log_probs_forget": mean_log_probs(model, sets.forget.rows(f), len(losses)),
            "log_probs_retain": mean_log_probs(model, sets.retain.rows(r), len(losses)),
        }
        references = {
            "ref_log_probs_forget": sets.ref_forget[f],
            "ref_log_probs_retain": sets.ref_retain[r],
        }
        total = sum(
            (_value(loss, inputs, references, copy) for copy, loss in enumerate(losses)),
            start=torch.zeros(()),
        )
        gradients = torch.autograd.grad(total, adapters.parameters, materialize_grads=True)
        fine &= optimiser.step(gradients, 1.0 - step / schedule.steps)
        tick((step + 1) / schedule.steps)
    return fine


def _value(
    loss: Expr, inputs: Mapping[str, Tensor], references: Mapping[str, Tensor], copy: int
) -> Tensor:
    """One candidate's loss on its own log-probabilities."""
    own = {name: value[copy] for name, value in inputs.items()}
    return torch_value(loss, {**own, **references})


class _AdamW:
    """AdamW (Loshchilov & Hutter 2019) with every candidate's gradient clipped by itself.

    A candidate whose gradient is not finite is not moved any more, so that it cannot harm others.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], schedule: Schedule) -> None:
        self.parameters = parameters
        self.schedule = schedule
        self.first = [torch.zeros_like(each) for each in parameters]
        self.second = [torch.zeros_like(each) for each in parameters]
        self.count = 0
        self.fine = torch.ones(len(parameters[0]), dtype=torch.bool, device=parameters[0].device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], share: float) -> Tensor:
        """One step at that share of the rate; returns (K,) whose gradients were finite so far."""
        self.count += 1
        squares = torch.stack([each.float().square().flatten(1).sum(1) for each in gradients])
        norm = squares.sum(0).sqrt()
        self.fine &= torch.isfinite(norm)
        factor = (self.schedule.clip / norm.clamp(min=1e-6)).clamp(max=1.0)
        factor = torch.where(self.fine, factor, 0.0)
        rate = self.schedule.lr * share
        correct1, correct2 = 1.0 - 0.9**self.count, 1.0 - 0.999**self.count
        moving = self.fine[:, None, None]
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            g = torch.where(moving, g * factor[:, None, None], 0.0)
            m.lerp_(g, 0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            change = m / correct1 / ((v / correct2).sqrt() + 1e-8)
            change = change + self.schedule.weight_decay * p
            p.sub_(torch.where(moving, rate * change, 0.0))
        return self.fine.cpu()
