"""Log-probabilities of answers under a model, for several candidates' adapters at once.

Where memory does not do for a minibatch, its rows go through the model some at a time, and what the
backward pass wants of them is computed anew when it comes to them (Chen et al. 2016, "Training deep
nets with sublinear memory cost"). A loss may sort or rank all rows, so that the gradients of parts
would not add up to its own; here it is the loss of the whole minibatch all the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from evoloss.unlearn.layers import head_of

_AT_ONCE: ContextVar[int | None] = ContextVar("rows at once", default=None)


class Extent(NamedTuple):
    """Of some rows: the longest, and how many places are to be predicted."""

    width: int
    answers: int


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

    @cached_property
    def _extents(self) -> NDArray[np.int64]:
        """(2, N) an `Extent` of each row, read once: every reading waits for a GPU."""
        found = torch.stack([self.attention.sum(1).long(), (self.answer > 0).sum(1)])
        return np.asarray(found.cpu().numpy())

    def extent(self, index: Tensor | None = None) -> Extent:
        """Of some rows, or of all. index: on the CPU."""
        extents = self._extents if index is None else self._extents[:, index.numpy()]
        return Extent(int(extents[0].max()), int(extents[1].sum()))

    def rows(self, index: Tensor, placed: Tensor | None = None) -> Sequences:
        """Some of them, without the columns that are padding in all of these.

        index: on the CPU; placed: the same where the tokens are, to save the move.
        """
        width = self.extent(index).width
        index = index if placed is None else placed
        parts = (self.tokens, self.attention, self.answer)
        return Sequences(*(each[index, :width] for each in parts))

    def split(self, most: int) -> list[Sequences]:
        """All rows in their order, so many at a time, with all columns."""
        parts = (each.split(most) for each in (self.tokens, self.attention, self.answer))
        return [Sequences(*each) for each in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return Sequences(self.tokens.to(device), self.attention.to(device), self.answer.to(device))


@contextmanager
def rows_at_once(most: int | None) -> Iterator[None]:
    """Within it, so many rows of a minibatch go through the model at once; None: all of them.

    As torch's threads, it is set for whoever computes: no objective has to pass it on.
    """
    before = _AT_ONCE.set(most)
    try:
        yield
    finally:
        _AT_ONCE.reset(before)


def by_rows(data: Sequences, extent: Extent, work: Callable[[Sequences, Extent], Tensor]) -> Tensor:
    """(copies, N, ...) what the model's passes make of the rows, each row by itself.

    All at once, or as `rows_at_once` says: then activations are of one part of the rows at a time,
    in the backward pass too, for which `work` is done again.
    """
    most = _AT_ONCE.get()
    if most is None:
        return work(data, extent)
    found = [
        checkpoint(work, part, part.extent(), use_reentrant=False, preserve_rng_state=False)
        for part in data.split(most)
    ]
    return torch.cat(found, 1)


def token_log_probs(
    model: nn.Module, part: Sequences, copies: int = 1, extent: Extent | None = None
) -> Tensor:
    """(copies · N, T) log-probability of each answer token, 0 elsewhere; candidate by candidate.

    extent: of the part, if it is known; to find it out waits for a GPU, and nothing else here does.
    """

    def of(rows: Sequences, extent: Extent) -> Tensor:
        return _token_log_probs(model, rows, copies, extent.answers)

    return by_rows(part, extent or part.extent(), of).flatten(0, 1)


def _token_log_probs(model: nn.Module, part: Sequences, copies: int, answers: int) -> Tensor:
    """(copies, N, T); answers: how many places are to be predicted."""
    tokens, attention, answer = (
        each.repeat(copies, 1) for each in (part.tokens, part.attention, part.answer > 0)
    )
    row, place = torch.nonzero_static(answer, size=copies * answers).unbind(1)
    logits = logits_at(
        model, (row, place - 1), input_ids=tokens, attention_mask=attention, use_cache=False
    ).float()  # place is never 0: nothing predicts the first token
    chosen = -functional.cross_entropy(logits, tokens[row, place], reduction="none")
    found = chosen.new_zeros(tokens.shape).index_put((row, place), chosen)
    return found.view(copies, *part.tokens.shape)


def logits_at(model: nn.Module, places: tuple[Tensor, Tensor], **inputs: Any) -> Tensor:
    """(M, V) logits at M places: their rows, and their positions in the rows.

    Over the whole vocabulary logits take most of the memory of a step, and a good part of its
    time, so that the model's head is given the hidden states of these places alone. A model whose
    head cannot be found computes all.
    """
    head = head_of(model)
    count = len(places[0])

    def chosen(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][places][None],)

    hook = None if head is None else head.register_forward_pre_hook(chosen)
    try:
        logits: Tensor = model(**inputs).logits
    finally:
        if hook is not None:
            hook.remove()
    if hook is not None and logits.shape[:2] == (1, count):
        return logits.squeeze(0)
    return logits[places]


def last_logits(model: nn.Module, count: int, **inputs: Any) -> tuple[Tensor, Any]:
    """(R, count, V) logits of the last positions, with all the output they are from.

    A model that can leaves out the others, which take more memory than all the rest.
    """
    parameters = inspect.signature(model.forward).parameters
    wanted = {"logits_to_keep": count} if "logits_to_keep" in parameters else {}
    output = model(**inputs, **wanted)
    return output.logits[:, -count:], output


def mean_log_probs(model: nn.Module, part: Sequences, copies: int = 1) -> Tensor:
    """(copies, N) mean log-probability of each answer's tokens."""
    summed = token_log_probs(model, part, copies).sum(1)
    return summed.view(copies, -1) / part.answer.sum(1)


@torch.no_grad()
def reference(model: nn.Module, data: Sequences, batch: int = 16) -> Tensor:
    """(N, T) token log-probabilities under the model as it is, before any adapter."""
    found = torch.zeros(data.tokens.shape)
    for index in torch.arange(len(data)).split(batch):
        part = data.rows(index)
        found[index, : part.tokens.shape[1]] = token_log_probs(model, part).cpu()
    return found
