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


class Extent(NamedTuple):
    """Of some rows: the longest, the first place that is to be predicted, and how many are."""

    width: int
    first: int
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
        """(3, N) an `Extent` of each row, read once: every reading waits for a GPU."""
        answer = self.answer > 0
        first = torch.where(answer.any(1), answer.int().argmax(1), answer.shape[1])
        found = torch.stack([self.attention.sum(1).long(), first, answer.sum(1)])
        return np.asarray(found.cpu().numpy())

    def extent(self, index: Tensor | None = None) -> Extent:
        """Of some rows, or of all. index: on the CPU."""
        extents = self._extents if index is None else self._extents[:, index.numpy()]
        width, first, answers = extents[0].max(), extents[1].min(), extents[2].sum()
        return Extent(int(width), int(first), int(answers))

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
    _, first, answers = extent or part.extent()  # never 0: nothing predicts the first token
    tokens, attention, answer = (
        each.repeat(copies, 1) for each in (part.tokens, part.attention, part.answer > 0)
    )
    logits, _ = last_logits(
        model, tokens.shape[1] - first + 1, input_ids=tokens, attention_mask=attention,
        use_cache=False,
    )  # fmt: skip
    # Of the answers alone: over the whole vocabulary this is most of the memory of a step.
    row, place = torch.nonzero_static(answer, size=copies * answers).unbind(1)
    wanted = logits[row, place - first].float()
    chosen = wanted.gather(-1, tokens[row, place][:, None]).squeeze(-1) - wanted.logsumexp(-1)
    return chosen.new_zeros(tokens.shape).index_put((row, place), chosen)


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
