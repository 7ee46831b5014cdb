"""Log-probabilities of answers under a model, for several candidates' adapters at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return Sequences(self.tokens.to(device), self.attention.to(device), self.answer.to(device))


def token_log_probs(model: nn.Module, part: Sequences, copies: int = 1) -> Tensor:
    """(copies · N, T) log-probability of each answer token, 0 elsewhere; candidate by candidate."""
    tokens, attention, answer = (
        each.repeat(copies, 1) for each in (part.tokens, part.attention, part.answer > 0)
    )
    width = tokens.shape[1]
    first = int(answer.any(0).nonzero()[0])  # never 0: nothing predicts the first token
    logits, _ = last_logits(
        model, width - first + 1, input_ids=tokens, attention_mask=attention, use_cache=False
    )
    # Of the answers alone: over the whole vocabulary this is most of the memory of a step.
    wanted = logits[:, :-1][answer[:, first:]].float()
    chosen = wanted.gather(-1, tokens[answer][:, None]).squeeze(-1) - wanted.logsumexp(-1)
    return chosen.new_zeros(tokens.shape).masked_scatter(answer, chosen)


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
