"""Log-probabilities of answers under a model, for several candidates' adapters at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    row, column = answer.nonzero(as_tuple=True)  # never column 0: nothing predicts the first token
    logits = logits_at(
        model, (row, column - 1), input_ids=tokens, attention_mask=attention, use_cache=False
    ).float()
    chosen = -functional.cross_entropy(logits, tokens[answer], reduction="none")
    return chosen.new_zeros(tokens.shape).masked_scatter(answer, chosen)


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
