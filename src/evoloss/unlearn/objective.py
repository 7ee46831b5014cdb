"""What adapters are trained on: the candidates' losses on minibatches of log-probabilities.

A loss that uses the masks is one of tokens: its vectors hold the log-probabilities of all tokens of
the minibatch, end to end, and the masks say which belong to answers. Any other is one of sequences
and sees the mean log-probability of each answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evoloss.lang.evaluate import torch_value
from evoloss.lang.expr import Expr, inputs_of
from evoloss.lang.types import MASKS, Signature, unlearning_signature
from evoloss.unlearn.log_probs import Extent, Sequences, token_log_probs


class Objective(Protocol):
    """What several candidates minimise, each with its own adapter."""

    def __len__(self) -> int:
        """How many candidates there are."""

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) the value of each running candidate at a step.

        The model holds the adapters of the running candidates and no others, in their order.
        """


@dataclass(frozen=True)
class Part:
    """One set as tokens, with its reference token log-probabilities (N, T)."""

    data: Sequences
    reference: Tensor

    def __len__(self) -> int:
        return len(self.data)

    def rows(self, chosen: Sequence[int]) -> Part:
        """Some of its rows."""
        data = self.data.rows(torch.tensor(chosen))
        return Part(data, self.reference[chosen, : data.tokens.shape[1]])

    def to(self, device: torch.device) -> Part:
        """The same on another device."""
        return Part(self.data.to(device), self.reference.to(device))


@dataclass(frozen=True)
class Order:
    """The minibatches of one set. rows: (steps, B) row numbers, on the CPU.

    What the steps of a training need is moved to the set's device once, and what Python has to know
    of them is read once: a GPU that is waited for in every step stands still in every step.
    """

    part: Part
    rows: Tensor

    def __getitem__(self, step: int) -> tuple[Part, Extent]:
        """The minibatch of a step."""
        index, placed = self.rows[step], self._placed[step]
        data = self.part.data.rows(index, placed)
        width = data.tokens.shape[1]
        return Part(data, self.part.reference[placed, :width]), self.part.data.extent(index)

    @cached_property
    def _placed(self) -> Tensor:
        return self.rows.to(self.part.reference.device)


@dataclass(frozen=True)
class Sets:
    """What is unlearned and what is kept; retain is None in the mode without a retain set."""

    forget: Part
    retain: Part | None

    def to(self, device: torch.device) -> Sets:
        """The same on another device."""
        return Sets(self.forget.to(device), None if self.retain is None else self.retain.to(device))


def signature_of(loss: Expr, retain: bool) -> Signature:
    """Which inputs an unlearning loss takes. retain: whether there is a retain set."""
    return unlearning_signature(bool(inputs_of(loss) & MASKS), retain)


def batches(rows: int, batch: int, steps: int, rng: np.random.Generator) -> Tensor:
    """(steps, min(batch, rows)) row numbers: shuffled passes, one after the other."""
    size = min(batch, rows)
    a_pass = rows // size
    order = [
        rng.permutation(rows)[: a_pass * size].reshape(a_pass, size)
        for _ in range(math.ceil(steps / a_pass))
    ]
    return torch.from_numpy(np.concatenate(order)[:steps])


def minibatches(
    sets: Sets, batch: int, steps: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """`batches` of each set. Those of a step are the same however many steps there are."""
    forget, retain = rng.spawn(2)
    return (
        batches(len(sets.forget), batch, steps, forget),
        None if sets.retain is None else batches(len(sets.retain), batch, steps, retain),
    )


def orders(sets: Sets, forget: Tensor, retain: Tensor | None) -> dict[str, Order]:
    """By the sets' names, the minibatches of these rows."""
    found = {"forget": Order(sets.forget, forget)}
    if sets.retain is not None and retain is not None:
        found["retain"] = Order(sets.retain, retain)
    return found


class LossObjective:
    """One loss of the loss language for each candidate, all on the same minibatches."""

    def __init__(
        self, losses: Sequence[Expr], sets: Sets, batch: int, steps: int, rng: np.random.Generator
    ) -> None:
        """batch: sequences of each set a step. rng: of the minibatches."""
        self.losses = losses
        self.sets = sets
        self.by_token = [bool(inputs_of(loss) & MASKS) for loss in losses]
        self.forget, self.retain = minibatches(sets, batch, steps, rng)
        self.orders = orders(sets, self.forget, self.retain)

    def __len__(self) -> int:
        return len(self.losses)

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) losses, each of its own adapter's log-probabilities."""
        batch = self.inputs(model, step, len(running))
        return torch.stack([self.value(copy, batch[at]) for at, copy in enumerate(running)])

    def inputs(self, model: nn.Module, step: int, copies: int) -> list[Batch]:
        """The log-probabilities of a step's minibatches under each of the model's adapters."""
        found = {name: _rows(model, each, step, copies) for name, each in self.orders.items()}
        return [{name: rows[copy] for name, rows in found.items()} for copy in range(copies)]

    def value(self, copy: int, batch: Batch) -> Tensor:
        """The loss of a candidate on its log-probabilities; NaN if it cannot be computed on them.

        Which vectors are of equal length, or have enough elements, depends on the minibatch.
        """
        by_token = self.by_token[copy]
        inputs: dict[str, Tensor] = {}
        for name, rows in batch.items():
            inputs |= rows.tokens(name) if by_token else rows.means(name)
        try:
            return torch_value(self.losses[copy], inputs)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # neither is the loss's fault
        except (RuntimeError, IndexError):
            return math.nan * batch["forget"].log_probs.sum()


@dataclass(frozen=True)
class Rows:
    """Token log-probabilities of a minibatch: model, reference, and what counts; (B, T) each."""

    log_probs: Tensor
    reference: Tensor
    answer: Tensor

    def tokens(self, side: str) -> dict[str, Tensor]:
        """The inputs of a loss of tokens: (B · T,) each."""
        return {
            f"log_probs_{side}": self.log_probs.flatten(),
            f"ref_log_probs_{side}": self.reference.flatten(),
            f"mask_{side}": self.answer.flatten().to(self.log_probs.dtype),
        }

    def means(self, side: str) -> dict[str, Tensor]:
        """The inputs of a loss of sequences: (B,) each."""
        count = self.answer.sum(1)
        return {
            f"log_probs_{side}": self.log_probs.sum(1) / count,
            f"ref_log_probs_{side}": self.reference.sum(1) / count,
        }


Batch = Mapping[str, Rows]
"""The minibatches of a step, of `forget` and `retain`, as one candidate's model sees them."""


def _rows(model: nn.Module, order: Order, step: int, copies: int) -> list[Rows]:
    part, extent = order[step]
    found = token_log_probs(model, part.data, copies, extent)
    by_copy = found.view(copies, *part.reference.shape)
    return [Rows(each, part.reference, part.data.answer) for each in by_copy]
