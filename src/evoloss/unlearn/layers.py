"""The linear layers of a causal language model, whatever its architecture calls them.

Found as `peft` finds `target_modules="all-linear"`: all but the output head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from torch import nn

from evoloss.errors import UserError


def head_of(model: nn.Module) -> nn.Module | None:
    """The layer that makes logits of hidden states, of a model or of one within it."""
    for each in model.modules():
        told: Any = getattr(each, "get_output_embeddings", None)
        if told is not None:
            head = told()
            return head if isinstance(head, nn.Module) else None
    return None


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """By full name. The head is not among them, nor is any layer with the weight of embeddings."""
    head = head_of(model)
    tied = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    return {
        name: layer
        for name, layer in _layers(model)
        if is_linear(layer) and layer is not head and id(layer.weight) not in tied
    }


def is_linear(layer: nn.Module) -> bool:
    """Whether it is a linear layer, GPT-2's kind included."""
    return isinstance(layer, (nn.Linear, _conv1d()))


def is_transposed(layer: nn.Module) -> bool:
    """Whether its weight is (in, out), as GPT-2's are; `peft` calls it `fan_in_fan_out`."""
    return isinstance(layer, _conv1d())


def sides(layer: nn.Module) -> tuple[int, int]:
    """The widths of a linear layer's input and output."""
    known: Any = layer
    if is_transposed(layer):
        return int(known.nx), int(known.nf)
    return int(known.in_features), int(known.out_features)


def chosen_layers(model: nn.Module, targets: Sequence[str] | None) -> dict[str, nn.Module]:
    """The linear layers whose names are, or end in, one of the targets; None for all of them.

    Raises: UserError if a target names none, or the model has none.
    """
    known = linear_layers(model)
    there = ", ".join(dict.fromkeys(map(last_part, known))) or "none"
    for target in targets or ():
        if not any(_named(name, target) for name in known):
            raise UserError(
                f"targets: the model has no linear layer named '{target}' besides its head: "
                f"there are {there}"
            )
    if not known:
        raise UserError(
            f"a {type(model).__name__} has no linear layer besides its head: nothing can be adapted"
        )
    if targets is None:
        return known
    return {name: layer for name, layer in known.items() if any(_named(name, t) for t in targets)}


def last_part(name: str) -> str:
    """Of a layer's full name, what is the same in every block."""
    return name.rpartition(".")[2]


def _named(name: str, target: str) -> bool:
    """As `peft` matches names."""
    return name == target or name.endswith(f".{target}")


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer within the model once, those of one parent together, under its first name."""
    seen: set[int] = set()
    for prefix, parent in model.named_modules():
        for name, layer in parent.named_children():
            if id(layer) not in seen:
                seen.add(id(layer))
                yield (f"{prefix}.{name}" if prefix else name), layer


@cache
def _conv1d() -> type[nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return Conv1D
