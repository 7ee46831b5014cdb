"""Batch norm in networks that have to be functions of their parameters and inputs alone.

In training a batch norm standardises by the batch at hand and remembers nothing: with running
statistics a pass would change the network, and what is stacked or unrolled would not be the
function that is differentiated. For evaluation the statistics of a trained copy are computed anew
from training minibatches (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", § 3), so that a
prediction depends on its own row and on no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Moments = dict[_BatchNorm, Tensor]
"""Mean and variance (2, channels) of what each batch norm sees."""

Statistics = Sequence[Moments]
"""The moments of each copy."""


def without_memory(module: nn.Module) -> list[_BatchNorm]:
    """Takes the running statistics from a module; returns the batch norms that would keep them."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    _forget(norms)
    return norms


def gathered(
    norms: Iterable[_BatchNorm], network: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> Moments:
    """The moments of each batch in a pass through the network, averaged over the batches."""
    seen: dict[_BatchNorm, list[Tensor]] = {}

    def record(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())])
        seen.setdefault(norm, []).append(torch.stack([mean, variance]))

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        for batch in batches:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: torch.stack(each).mean(0) for norm, each in seen.items()}


@contextmanager
def standardising_by(moments: Moments) -> Iterator[None]:
    """Within it, batch norms in evaluation mode take these moments; others take the batch's."""
    for norm, (mean, variance) in moments.items():
        norm.running_mean, norm.running_var = mean, variance
    try:
        yield
    finally:
        _forget(moments)


def _forget(norms: Iterable[_BatchNorm]) -> None:
    for norm in norms:
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
