"""Low-rank adapters of several candidates on one frozen model, trained side by side.

LoRA (Hu et al. 2022): a linear layer W gets W x + α/r B A x. Here every adapted layer holds the
A and B of K candidates, and a batch of K · B sequences goes through the model once: the first B
sequences are candidate 1's, and so on. What is trained is saved as `peft` saves it, and loads with
`peft` alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.errors import UserError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that are adapted, by the last part of their names."""


@dataclass(frozen=True)
class LoraSettings:
    """Rank r, scale α, and which layers; the defaults are EvoMU's."""

    rank: int = 8
    alpha: float = 32.0
    targets: tuple[str, ...] = PROJECTIONS


class _Adapted(nn.Module):
    """A frozen linear layer with the adapters of K candidates."""

    def __init__(self, base: nn.Linear, copies: int, settings: LoraSettings) -> None:
        super().__init__()
        self.base = base
        self.copies = copies
        self.on = True
        self.scale = settings.alpha / settings.rank
        device, rank = base.weight.device, settings.rank
        self.a = nn.Parameter(torch.zeros(copies, rank, base.in_features, device=device))
        self.b = nn.Parameter(torch.zeros(copies, base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(K · B, T, in) → (K · B, T, out); switched off, a batch of any size through the base."""
        out: Tensor = self.base(x)
        if not self.on:
            return out
        rows = x.reshape(self.copies, -1, x.shape[-1]).to(self.a.dtype)
        changed = torch.baddbmm(
            out.reshape(self.copies, -1, out.shape[-1]).to(self.a.dtype),
            torch.bmm(rows, self.a.mT), self.b.mT, alpha=self.scale,
        )  # fmt: skip
        return changed.reshape(out.shape).to(out.dtype)


class Adapters:
    """K sets of adapters on one model; made by `attached`."""

    def __init__(self, layers: dict[str, _Adapted], settings: LoraSettings) -> None:
        self.layers = layers
        self.settings = settings

    @property
    def copies(self) -> int:
        """How many candidates."""
        return next(iter(self.layers.values())).copies

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All A and B, each with a leading dimension K."""
        return [each for layer in self.layers.values() for each in (layer.a, layer.b)]

    def reset(self, seed: int) -> None:
        """A as `peft` draws it, the same for all candidates; B zero: the model is unchanged."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.layers.values():
                bound = 1.0 / math.sqrt(layer.a.shape[-1])
                drawn = torch.empty(layer.a.shape[1:]).uniform_(-bound, bound, generator=generator)
                layer.a.copy_(drawn.to(layer.a))
                layer.b.zero_()

    def moved(self) -> Tensor:
        """(K,) the largest weight of B: 0 where an adapter is still what it began as."""
        return torch.stack(
            [layer.b.detach().abs().flatten(1).amax(1) for layer in self.layers.values()]
        ).amax(0)

    def states(self) -> list[dict[str, Tensor]]:
        """The weights of each candidate, under `peft`'s names, on the CPU."""
        here = {
            f"base_model.model.{name}.lora_{key}.weight": weight.detach().cpu()
            for name, layer in self.layers.items()
            for key, weight in (("A", layer.a), ("B", layer.b))
        }
        return [
            {name: weight[copy].clone() for name, weight in here.items()}
            for copy in range(self.copies)
        ]

    def load(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Takes the weights of `states` in, one candidate each."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                for key, weight in (("A", layer.a), ("B", layer.b)):
                    full = f"base_model.model.{name}.lora_{key}.weight"
                    weight.copy_(torch.stack([state[full] for state in states]).to(weight))


@contextmanager
def attached(model: nn.Module, copies: int, settings: LoraSettings) -> Iterator[Adapters]:
    """The model with adapters for so many candidates; afterwards it is as it was.

    Raises UserError if no layer of the model has one of the names.
    """
    places = [
        (parent, name, f"{prefix}.{name}" if prefix else name)
        for prefix, parent in model.named_modules()
        for name, child in parent.named_children()
        if name in settings.targets and isinstance(child, nn.Linear)
    ]
    if not places:
        raise UserError(
            f"the model has no linear layer named {', '.join(settings.targets)}: "
            "name the layers to adapt"
        )
    frozen = [(p, p.requires_grad) for p in model.parameters()]
    layers: dict[str, _Adapted] = {}
    for parameter, _ in frozen:
        parameter.requires_grad_(False)
    try:
        for parent, name, full in places:
            layers[full] = _Adapted(getattr(parent, name), copies, settings)
            setattr(parent, name, layers[full])
        yield Adapters(layers, settings)
    finally:
        for parent, name, full in places:
            if full in layers:
                setattr(parent, name, layers[full].base)
        for parameter, before in frozen:
            parameter.requires_grad_(before)


@contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """The model without the effect of its adapters: as it was before they were attached."""
    layers = [each for each in model.modules() if isinstance(each, _Adapted)]
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def save(state: dict[str, Tensor], settings: LoraSettings, base: str, folder: Path) -> None:
    """Writes one candidate's adapter as a directory that `peft` loads.

    base: the path or name of the model that it belongs to.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.contiguous().cpu() for name, weight in state.items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    about: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(settings.targets),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
