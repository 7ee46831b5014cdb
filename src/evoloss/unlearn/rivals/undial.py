"""UNDIAL: self-distillation to the model's own logits, less the true token's (Dong et al. 2024).

    mean over answer tokens of CE(softmax(z₀ - β e_true), softmax(z)) + α · retain NLL,

z₀ the logits of the model before unlearning; the retain term is OpenUnlearning's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evoloss.unlearn.adapters import off
from evoloss.unlearn.log_probs import Extent, Sequences, by_rows
from evoloss.unlearn.rivals.minibatches import Minibatches
from evoloss.unlearn.rivals.rival import Context, Variant


class UNDIAL:
    """Constants: beta, by how much a logit is lowered, and alpha, the weight of the retain term."""

    def __init__(self, variants: Sequence[Variant], context: Context) -> None:
        self.variants = variants
        self.minibatches = Minibatches(context)

    def __len__(self) -> int:
        return len(self.variants)

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) values of the running variants, each under its own adapter."""
        part, extent = self.minibatches.orders["forget"][step]

        def of(rows: Sequences, extent: Extent) -> Tensor:
            return self._distilled(model, rows, extent, running)[:, None]

        forget = by_rows(part.data, extent, of).sum(1) / extent.answers
        retain = self.minibatches.retain_nll(model, step, len(running))
        alphas = [self.variants[copy]["alpha"] for copy in running]
        return torch.stack([forget[at] + alpha * retain[at] for at, alpha in enumerate(alphas)])

    def _distilled(
        self, model: nn.Module, data: Sequences, extent: Extent, running: Sequence[int]
    ) -> Tensor:
        """(len(running),) cross-entropy with the lowered logits, summed over the answer tokens."""
        places = torch.nonzero_static(data.answer[:, 1:] > 0, size=extent.answers).unbind(1)
        # Logits of a whole set, (N, T, V), fit nowhere; one more pass for all candidates together
        # gives those of the minibatch.
        with off(model), torch.no_grad():
            teacher = _answer_logits(model, data, places, 1)[0]
        true = data.tokens[:, 1:][places[0], places[1]][:, None]
        student = _answer_logits(model, data, places, len(running))
        found = []
        for at, copy in enumerate(running):
            lowered = torch.full_like(teacher[:, :1], -self.variants[copy]["beta"])
            target = teacher.scatter_add(1, true, lowered).softmax(-1)
            found.append(cross_entropy(student[at], target, reduction="sum"))
        return torch.stack(found)


def _answer_logits(
    model: nn.Module, data: Sequences, places: tuple[Tensor, ...], copies: int
) -> Tensor:
    """(copies, n, V) logits from which the n answer tokens of a minibatch are predicted.

    places: rows and columns of the answer tokens, the first column left out.
    """
    tokens, attention = (each.repeat(copies, 1) for each in (data.tokens, data.attention))
    logits: Tensor = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
    by_copy = logits[:, :-1].reshape(copies, *data.answer[:, 1:].shape, -1)
    return by_copy[:, places[0], places[1]].float()
