"""Log-probabilities of answers under a model, for several candidates' adapters at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


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

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return Sequences(self.tokens.to(device), self.attention.to(device), self.answer.to(device))


def token_log_probs(
    model: nn.Module, part: Sequences, copies: int = 1, extent: Extent | None = None
) -> Tensor:
    """(copies · N, T) log-probability of each answer token, 0 elsewhere; candidate by candidate.

    extent: of the part, if it is known; to find it out waits for a GPU, and nothing else here does.
    """
    answers = (extent or part.extent()).answers
    tokens, attention, answer = (
        each.repeat(copies, 1) for each in (part.tokens, part.attention, part.answer > 0)
    )
    row, place = torch.nonzero_static(answer, size=copies * answers).unbind(1)
    logits = logits_at(
        model, (row, place - 1), input_ids=tokens, attention_mask=attention, use_cache=False
    ).float()  # place is never 0: nothing predicts the first token
    chosen = -functional.cross_entropy(logits, tokens[row, place], reduction="none")
    return chosen.new_zeros(tokens.shape).index_put((row, place), chosen)


def logits_at(model: nn.Module, places: tuple[Tensor, Tensor], **inputs: Any) -> Tensor:
    """(M, V) logits at M places: their rows, and their positions in the rows.

    Over the whole vocabulary logits take most of the memory of a step, and a good part of its
    time, so that the model's head is given the hidden states of these places alone. A model whose
    head cannot be found computes all.
    """
    head = _head(model)
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


def _head(model: nn.Module) -> nn.Module | None:
    """The layer that makes logits of hidden states, of a model or of one within it."""
    for each in model.modules():
        told: Any = getattr(each, "get_output_embeddings", None)
        if told is not None:
            head = told()
            return head if isinstance(head, nn.Module) else None
    return None


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
