"""RMU: hidden states are steered to a random direction on what is forgotten (Li et al. 2024).

At the output h of one layer, u a fixed unit vector, its entries drawn from [0, 1):

    mean ‖h(forget) - c u‖² / H + α · mean ‖h(retain) - h₀(retain)‖² / H,

on the tokens of answers, each sequence weighing the same, as in OpenUnlearning. The original trains
some weights of the layer and of the two before it; here all adapters up to the layer are trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.errors import UserError
from evoloss.unlearn.adapters import off
from evoloss.unlearn.log_probs import Extent, Sequences, by_rows
from evoloss.unlearn.rivals.minibatches import Minibatches
from evoloss.unlearn.rivals.rival import Context, Variant


class RMU:
    """Constants: layer, counted from 0, coefficient c, and alpha, the weight of the retain term.

    A layer beyond the model's last one is the last.
    """

    def __init__(self, variants: Sequence[Variant], context: Context) -> None:
        """Raises: UserError if the model's layers cannot be told."""
        model: Any = context.model
        self.variants = variants
        self.minibatches = Minibatches(context)
        self.layers = [int(fitting(variant, model)["layer"]) for variant in variants]
        drawn = torch.from_numpy(context.rng.random(model.config.hidden_size)).float()
        self.direction = (drawn / drawn.norm()).to(context.sets.forget.reference.device)

    def __len__(self) -> int:
        return len(self.variants)

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) values of the running variants, each under its own adapter."""
        retain = self._retain(model, step, running)
        part, extent = self.minibatches.orders["forget"][step]
        states = self._states(model, part.data, extent, running, len(running))
        found = []
        for at, copy in enumerate(running):
            target = self.variants[copy]["coefficient"] * self.direction
            away = _distance(states[at], target, part.data.answer)
            found.append(away + self.variants[copy]["alpha"] * retain[at])
        return torch.stack(found)

    def _retain(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) how far hidden states of the retain set have moved; 0 without one."""
        if "retain" not in self.minibatches.orders:
            return torch.zeros(len(running), device=self.direction.device)
        part, extent = self.minibatches.orders["retain"][step]
        # (N, T, H) numbers a layer are too many to keep for a large set; one more pass, shared by
        # all candidates, gives those of the minibatch.
        with off(model), torch.no_grad():
            frozen = self._states(model, part.data, extent, running, 1)
        states = self._states(model, part.data, extent, running, len(running))
        pairs = zip(states, frozen, strict=True)
        return torch.stack([_distance(*pair, part.data.answer) for pair in pairs])

    def _states(
        self, model: Any, data: Sequences, extent: Extent, running: Sequence[int], copies: int
    ) -> Tensor:
        """(len(running), B, T, H) outputs of the layer of each running variant.

        copies: of the model, one for each variant, or one for all.
        """
        layers = [self.layers[copy] for copy in running]

        def of(rows: Sequences, _: Extent) -> Tensor:
            tokens, attention = (each.repeat(copies, 1) for each in (rows.tokens, rows.attention))
            with _outputs(model, set(layers)) as found:
                # The body alone: no logits are wanted.
                model.base_model(input_ids=tokens, attention_mask=attention, use_cache=False)
            by_copy = {at: each.float().unflatten(0, (copies, -1)) for at, each in found.items()}
            return torch.stack([by_copy[at][copy % copies] for copy, at in enumerate(layers)])

        return by_rows(data, extent, of)


def fitting(variant: Variant, model: nn.Module) -> Variant:
    """The constants with a layer that the model has.

    Raises: UserError if the model's layers cannot be told.
    """
    last = len(_blocks(model)) - 1
    return {**variant, "layer": float(min(round(variant["layer"]), last))}


def _distance(states: Tensor, target: Tensor, answer: Tensor) -> Tensor:
    """() mean square over H, over the answer tokens of each sequence, then over sequences.

    states: (B, T, H); target: (B, T, H) or (H,); answer: (B, T).
    """
    squares = (states - target).square().mean(-1) * answer
    return (squares.sum(1) / answer.sum(1)).mean()


def _blocks(model: Any) -> nn.ModuleList:
    """The model's layers, one after the other."""
    depth = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise UserError(f"RMU finds no list of {depth} layers in a {type(model).__name__}")


@contextmanager
def _outputs(model: nn.Module, layers: Iterable[int]) -> Iterator[dict[int, Tensor]]:
    """Fills what it yields with the outputs of the layers as the model runs."""
    found: dict[int, Tensor] = {}

    def keep(layer: int, output: Any) -> None:
        found[layer] = output[0] if isinstance(output, tuple) else output

    blocks = _blocks(model)
    hooks = [
        blocks[layer].register_forward_hook(lambda _, __, output, at=layer: keep(at, output))
        for layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
