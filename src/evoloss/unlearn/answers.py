"""What models say of given answers: log-probabilities, arg-max matches and gradient norms.

The answers are those of K candidates side by side, as in training. Gradient norms of single
answers come out of one backward pass (Goodfellow 2015; Li et al. 2022, "ghost norms"): the gradient
of a linear layer's weight is sum_t d_t x_t^T, and the square of its norm the sum over t and s of
(d_t · d_s)(x_t · x_s), where x is the layer's input and d the gradient of its output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.unlearn.layers import linear_layers
from evoloss.unlearn.log_probs import logits_at
from evoloss.unlearn.metrics.table import Array
from evoloss.unlearn.tokens import Encoded, Ids


@dataclass(frozen=True)
class Told:
    """What a model says of one answer; (T,) each, with the end token if there is one.

    matches: whether the token is the most probable one. moments: mean and deviation of log p
    under p over the vocabulary at each token, () where they were not asked for.
    """

    log_probs: Array
    matches: Array
    moments: tuple[Array, ...] = ()


@torch.no_grad()
def told(
    model: nn.Module,
    rows: Iterable[Encoded],
    pad: int,
    *,
    copies: int = 1,
    batch: int = 32,
    moments: bool = False,
) -> list[dict[Encoded, Told]]:
    """What each candidate says of the rows, under the true tokens before each token.

    batch: rows that go through the model at once, for each candidate.
    """
    # The last token is only predicted. Rows that differ in it alone, as the letters of a question
    # do, share a pass.
    sharing: dict[Ids, list[Encoded]] = {}
    for row in dict.fromkeys(rows):
        sharing.setdefault(row.ids[:-1], []).append(row)
    # The longest come first: too large a batch fails at once.
    groups = sorted(sharing.values(), key=lambda same: -len(same[0].ids))
    found: list[dict[Encoded, Told]] = [{} for _ in range(copies)]
    for start in range(0, len(groups), batch):
        part = groups[start : start + batch]
        own = _answer_log_probs(model, [same[0].ids[:-1] for same in part], part, pad, copies)
        for known, (log_probs, targets) in zip(found, own, strict=True):
            known |= _split(part, log_probs, targets, moments)
    return found


def gradient_norms(
    model: nn.Module,
    rows: Iterable[Encoded],
    pad: int,
    *,
    copies: int = 1,
    batch: int = 8,
) -> list[dict[Encoded, float]]:
    """Norms of the gradients of each row's mean log-probability, the end token left out.

    The mean over the weights of all linear layers but the head, as they are with the adapters
    merged; OpenUnlearning's mean is over all parameters.
    """
    order = sorted(dict.fromkeys(rows), key=lambda row: -len(row.ids))
    found: list[dict[Encoded, float]] = [{} for _ in range(copies)]
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        bare = [Encoded(row.prompt + row.answer, row.start, False, row.example) for row in part]
        norms = _norms(model, bare, pad, copies)
        for known, own in zip(found, norms.tolist(), strict=True):
            known.update(zip(part, own, strict=True))
    return found


def device_of(model: nn.Module) -> torch.device:
    """Where its inputs go."""
    return next(model.parameters()).device


def _answer_log_probs(
    model: nn.Module,
    contexts: Sequence[Ids],
    groups: Sequence[Sequence[Encoded]],
    pad: int,
    copies: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each candidate (M, V) log-probabilities at the M answer tokens of all rows, (M,) tokens.

    contexts: N rows of tokens without the last one; groups: the rows that each is the context of.
    """
    width, device = max(map(len, contexts)), device_of(model)
    tokens = torch.tensor([ids + (pad,) * (width - len(ids)) for ids in contexts])
    attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in contexts])
    places = [
        (place, at - 1, row.ids[at])
        for place, same in enumerate(groups)
        for row in same
        for at in range(row.start, len(row.ids))
    ]
    at_row, at_token, targets = torch.tensor(places, device=device).T
    first = torch.arange(copies, device=device).repeat_interleave(len(places)) * len(contexts)
    logits = logits_at(
        model,
        (first + at_row.repeat(copies), at_token.repeat(copies)),
        input_ids=tokens.repeat(copies, 1).to(device),
        attention_mask=attention.repeat(copies, 1).to(device),
        use_cache=False,
    )
    # One candidate at a time: in 32 bits the vocabulary takes much memory.
    for own in logits.view(copies, len(places), -1):
        yield own.float().log_softmax(-1), targets


def _split(
    groups: Sequence[Sequence[Encoded]], log_probs: Tensor, targets: Tensor, moments: bool
) -> dict[Encoded, Told]:
    """One candidate's log-probabilities (M, V), row by row."""
    rows = [row for same in groups for row in same]
    columns = [log_probs.gather(-1, targets[:, None])[:, 0], log_probs.argmax(-1) == targets]
    columns += _moments(log_probs) if moments else ()
    lengths = [len(row.ids) - row.start for row in rows]
    parts = ([part.numpy() for part in each.cpu().split(lengths)] for each in columns)
    return {
        row: Told(chosen, matches, tuple(rest))
        for row, (chosen, matches, *rest) in zip(rows, zip(*parts, strict=True), strict=True)
    }


def _moments(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) mean and deviation of log p under p; `membership.vocabulary_moments` on any device."""
    weights = log_probs.exp()
    finite = log_probs.where(weights > 0, 0.0)
    mean = (weights * finite).sum(-1)
    variance = (weights * (finite - mean[:, None]).square()).sum(-1)
    return mean, variance.sqrt()


def _norms(model: nn.Module, rows: Sequence[Encoded], pad: int, copies: int) -> Tensor:
    """(K, N) norms, averaged over the layers."""
    lengths = torch.tensor([len(row.ids) - row.start for row in rows], device=device_of(model))
    count, width = copies * len(rows), max(len(row.ids) for row in rows) - 1
    share = (1.0 / lengths).repeat_interleave(lengths)
    with torch.enable_grad(), _traffic(model, count, width) as passed:
        groups = [[row] for row in rows]
        total = torch.zeros((), device=lengths.device)
        for log_probs, targets in _answer_log_probs(
            model, [row.ids[:-1] for row in rows], groups, pad, copies
        ):
            total = total + (log_probs.gather(-1, targets[:, None])[:, 0] * share).sum()
        gradients = torch.autograd.grad(total, [output for _, output in passed])
    pairs = (
        [each.float().reshape(count, width, -1) for each in (x, d)]
        for (x, _), d in zip(passed, gradients, strict=True)
    )
    norms = [((x @ x.mT) * (d @ d.mT)).sum((1, 2)).clamp(min=0).sqrt() for x, d in pairs]
    return torch.stack(norms).mean(0).view(copies, len(rows))


@contextmanager
def _traffic(model: nn.Module, rows: int, width: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of the linear layers in the passes made within.

    Of so many rows of so many tokens: (R, T, in) and (R, T, out), or (R · T, …).
    """
    known: Any = model  # the method is untyped in part
    passed: list[tuple[Tensor, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # What mixes the rows, as routed experts do, has no gradients of single rows. Some layers,
        # such as OPT's, see the tokens of all rows end to end.
        if output.shape[:-1] in ((rows, width), (rows * width,)):
            passed.append((inputs[0].detach(), output))

    # The weights may all be frozen, and then nothing else asks for gradients.
    begin = known.get_input_embeddings().register_forward_hook(
        lambda layer, inputs, output: output.requires_grad_()
    )
    layers = linear_layers(model).values()
    hooks = [begin, *(each.register_forward_hook(note) for each in layers)]
    try:
        yield passed
    finally:
        for hook in hooks:
            hook.remove()
