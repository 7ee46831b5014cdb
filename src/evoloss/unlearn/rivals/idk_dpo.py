"""IdkDPO: an answer that admits ignorance is preferred over the true one.

Direct preference optimisation (Rafailov et al. 2023) as TOFU uses it (Maini et al. 2024), with
OpenUnlearning's scale and retain term: on the log-probabilities of whole answers,

    -2/β · mean logsigmoid(β (log π(idk)/π₀(idk) - log π(true)/π₀(true))) + α · retain NLL.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet
from evoloss.unlearn.log_probs import reference, token_log_probs
from evoloss.unlearn.objective import Order, Part
from evoloss.unlearn.rivals.minibatches import Minibatches
from evoloss.unlearn.rivals.rival import Context, Variant
from evoloss.unlearn.tokens import padded

ANSWERS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I'm not sure about this one.",
    "Sorry, I have no information about that.",
    "That is something I cannot tell you.",
    "I have never heard of this.",
    "I'm afraid I can't answer this question.",
    "This is not known to me.",
    "I don't have any details on that.",
    "Unfortunately, I have no answer to this.",
)


class IdkDPO:
    """Constants: beta, the strength of the preference, and alpha, the weight of the retain term."""

    def __init__(self, variants: Sequence[Variant], context: Context) -> None:
        """Raises: UserError if the forget set has running text, which asks nothing."""
        self.variants = variants
        self.minibatches = Minibatches(context)
        self.idk = _ignorance(context, self.minibatches.forget)

    def __len__(self) -> int:
        return len(self.variants)

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) values of the running variants, each under its own adapter."""
        copies = len(running)
        idk = _log_ratio(model, self.idk, step, copies)
        known = _log_ratio(model, self.minibatches.orders["forget"], step, copies)
        beta, alpha = (
            idk.new_tensor([self.variants[copy][name] for copy in running])
            for name in ("beta", "alpha")
        )
        preference = logsigmoid(beta[:, None] * (idk - known)).mean(1)
        return -2.0 / beta * preference + alpha * self.minibatches.retain_nll(model, step, copies)


def _ignorance(context: Context, rows: Tensor) -> Order:
    """The prompts of the rows (steps, B) with drawn answers, and which of them a step takes.

    Each visit to a row draws anew. What was drawn more than once is kept once, so that there is
    never more to keep than every prompt with every answer.
    """
    for example in context.forget:
        if example.continues:
            raise UserError(
                f"IdkDPO needs questions: row {example.row} of the forget set is running text"
            )
    phrases = context.rng.integers(len(ANSWERS), size=rows.shape)
    pairs, places = np.unique(rows.numpy() * len(ANSWERS) + phrases, return_inverse=True)
    prompts = (context.forget[pair // len(ANSWERS)] for pair in pairs)
    answered = tuple(
        prompt.answered(ANSWERS[pair % len(ANSWERS)])
        for prompt, pair in zip(prompts, pairs, strict=True)
    )
    encoded = context.encoder.encode_set(DataSet("answers of ignorance", answered), context.length)
    device = context.sets.forget.reference.device
    data = padded(encoded.rows, context.encoder.pad).to(device)
    part = Part(data, reference(context.model, data)).to(device)
    return Order(part, torch.from_numpy(places.reshape(rows.shape)))


def _log_ratio(model: nn.Module, order: Order, step: int, copies: int) -> Tensor:
    """(copies, B) log-probability of each whole answer, less that under the reference."""
    part, extent = order[step]
    found = token_log_probs(model, part.data, copies, extent).sum(1)
    return found.view(copies, -1) - part.reference.sum(1)
