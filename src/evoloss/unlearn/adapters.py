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

from evoloss.unlearn.layers import chosen_layers, is_transposed, last_part, sides


@dataclass(frozen=True)
class LoraSettings:
    """Rank r, scale α, and which layers; the defaults are EvoMU's.

    targets: the layers' names, or what these end in; None for all linear layers but the head.
    """

    rank: int = 8
    alpha: float = 32.0
    targets: tuple[str, ...] | None = None


class _Adapted(nn.Module):
    """A frozen linear layer with the adapters of K candidates."""

    def __init__(self, base: nn.Module, copies: int, settings: LoraSettings) -> None:
        super().__init__()
        self.base = base
        self.copies = copies
        self.on = True
        self.scale = settings.alpha / settings.rank
        device, rank = next(base.parameters()).device, settings.rank
        into, out = sides(base)
        self.a = nn.Parameter(torch.zeros(copies, rank, into, device=device))
        self.b = nn.Parameter(torch.zeros(copies, out, rank, device=device))

    @property
    def weight(self) -> Any:
        """The frozen one: some models look at its type."""
        return self.base.weight

    @property
    def bias(self) -> Any:
        """The frozen one."""
        return self.base.bias

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

    Raises UserError if the model has no such layers.
    """
    chosen = chosen_layers(model, settings.targets)
    frozen = [(p, p.requires_grad) for p in model.parameters()]
    layers: dict[str, _Adapted] = {}
    for parameter, _ in frozen:
        parameter.requires_grad_(False)
    try:
        for name, base in chosen.items():
            layers[name] = _Adapted(base, copies, settings)
            model.set_submodule(name, layers[name])
        yield Adapters(layers, settings)
    finally:
        for name in layers:
            model.set_submodule(name, chosen[name])
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


def save(
    state: dict[str, Tensor], settings: LoraSettings, model: nn.Module, base: str, folder: Path
) -> None:
    """Writes one candidate's adapter as a directory that `peft` loads.

    model: that it was trained on; base: the path or name of it.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.contiguous().cpu() for name, weight in state.items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    layers = chosen_layers(model, settings.targets)
    about: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(settings.targets or set(map(last_part, layers))),
        "fan_in_fan_out": all(map(is_transposed, layers.values())),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
