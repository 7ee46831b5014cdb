"""Greedy generation for the adapters of K candidates side by side, with one key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evoloss.unlearn.answers import device_of
from evoloss.unlearn.log_probs import last_logits
from evoloss.unlearn.tokens import Encoder, Ids, padded_prompts

_LOOK = 8
"""After so many tokens it is looked whether a GPU may stop; every look waits for it."""


def greedy(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[Ids],
    limits: Sequence[int],
    *,
    copies: int = 1,
    batch: int = 32,
) -> list[list[Ids]]:
    """What each candidate answers to each prompt: the most probable tokens before the end token.

    limits: how many tokens at most, for each prompt. batch: prompts at once for each candidate.
    A candidate whose logits are not numbers says nothing more.
    """
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found: list[list[Ids]] = [[()] * len(prompts) for _ in range(copies)]
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        tokens = _generate(
            model, encoder, [prompts[n] for n in part], [limits[n] for n in part], copies
        )
        for number, row in enumerate(tokens.tolist()):
            copy, place = divmod(number, len(part))
            ended = row.index(encoder.end) if encoder.end in row else len(row)
            found[copy][part[place]] = tuple(row[:ended])
    return found


@torch.no_grad()
def _generate(
    model: nn.Module, encoder: Encoder, prompts: Sequence[Ids], limits: Sequence[int], copies: int
) -> Tensor:
    """(copies · N, steps) new tokens, the end token after the last one."""
    device = device_of(model)
    tokens, attention = (
        each.repeat(copies, 1).to(device) for each in padded_prompts(prompts, encoder.pad)
    )
    limit = torch.tensor(limits, device=device).repeat(copies)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache = None
    steps: list[Tensor] = []
    finished = limit <= 0
    every = 1 if device.type == "cpu" else _LOOK
    for step in range(max(limits)):
        if step % every == 0 and finished.all():
            break
        logits, output = last_logits(
            model,
            1,
            input_ids=tokens,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        chosen = logits[:, 0].argmax(-1)
        finished |= (chosen == encoder.end) | logits[:, 0].isnan().any(-1)
        steps.append(torch.where(finished, encoder.end, chosen))
        finished |= len(steps) >= limit
        tokens = steps[-1][:, None]
        attention = torch.cat([attention, torch.ones_like(tokens)], 1)
        # Who has finished stays where he is: the context may end there.
        positions = positions[:, -1:] + ~finished[:, None]
    return torch.stack(steps, 1) if steps else tokens[:, :0]
