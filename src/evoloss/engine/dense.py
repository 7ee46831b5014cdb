"""A stack for plain multilayer perceptrons, differentiated by hand in batched matrix products.

For small networks the cost of a step is the number of operations, not their size: written out,
a step of 25 networks takes a fraction of what it takes through autograd and `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evoloss.engine.batch_norm import Statistics
from evoloss.engine.stack import Layout, Pullback


@dataclass(frozen=True)
class _Activation:
    """h = value(z), and the factor h' applied to g, from h alone."""

    value: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor, Tensor], Tensor]


_ACTIVATIONS: dict[type[nn.Module], _Activation] = {
    nn.ReLU: _Activation(torch.relu, lambda g, h: torch.ops.aten.threshold_backward(g, h, 0)),
    nn.Tanh: _Activation(torch.tanh, torch.ops.aten.tanh_backward),
    nn.Sigmoid: _Activation(torch.sigmoid, torch.ops.aten.sigmoid_backward),
    nn.Identity: _Activation(lambda z: z, lambda g, h: g),
}


@dataclass(frozen=True)
class Layer:
    """h = activation(h W^T + b); the names of W and b in the module's layout, the activation."""

    weight: str
    bias: str | None
    kind: type[nn.Module] = nn.Identity

    @property
    def activation(self) -> _Activation:
        return _ACTIVATIONS[self.kind]


def dense_layers(module: nn.Module) -> list[Layer] | None:
    """The layers of a module that is nothing but Linear and activations in a row, else None."""
    if type(module).forward not in (nn.Sequential.forward, nn.Linear.forward):
        return None
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return None
    # Not `named_children`, which names a layer that occurs twice only once.
    parts = list(module._modules.items()) or [("", module)]
    # Frozen parameters are not among these, nor those that are another's under a second name.
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    layers: list[Layer] = []
    for index, (name, part) in enumerate(parts):
        prefix = f"{name}." if name else ""
        if type(part) is nn.Linear and all(
            f"{prefix}{own}" in trained for own, _ in part.named_parameters()
        ):
            bias = f"{prefix}bias" if part.bias is not None else None
            layers.append(Layer(f"{prefix}weight", bias))
        elif part is not None and type(part) in _ACTIVATIONS and layers:
            if layers[-1].kind is not nn.Identity:
                return None
            layers[-1] = replace(layers[-1], kind=type(part))
        elif not (type(part) is nn.Flatten and index == 0 and part.start_dim == 1):
            return None
    return layers or None


class DenseStack:
    """`Stack` for `dense_layers`; see there for which modules."""

    repeatable = True

    def __init__(self, module: nn.Module, layers: list[Layer]) -> None:
        self.layout = Layout(module)
        self.layers = layers

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._activations(self.layout.split(theta), x)[-1]

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        named = self.layout.split(theta.detach())
        hidden = self._activations(named, x)

        def pullback(gradient: Tensor) -> Tensor:
            found: dict[str, Tensor] = {}
            g = gradient
            for index in range(len(self.layers) - 1, -1, -1):
                layer, below = self.layers[index], hidden[index]
                g = layer.activation.scale(g, hidden[index + 1].expand_as(g))
                found[layer.weight] = g.mT @ below
                if layer.bias is not None:
                    found[layer.bias] = g.sum(1)
                if index:
                    g = g @ named[layer.weight]
            return self.layout.join(found, leading=1)

        return hidden[-1], pullback

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        named, directions = self.layout.split(theta), self.layout.split(along)
        hidden = self._activations(named, x)
        moved: Tensor | None = None
        for index, layer in enumerate(self.layers):
            # In place on one tensor: these are bound by memory, not by arithmetic.
            change = self._affine(directions, layer, hidden[index])
            if moved is not None:
                weight = named[layer.weight].mT.expand(len(moved), -1, -1)
                change = change.baddbmm_(moved, weight.to(change.dtype))
            moved = layer.activation.scale(change, hidden[index + 1].expand_as(change))
        assert moved is not None  # there is at least one layer
        return moved

    def statistics(self, theta: Tensor, batches: Sequence[Tensor]) -> None:
        """None: these networks have no batch norm."""

    def predict(self, theta: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        with torch.no_grad():
            return self.forward(theta, x)

    def reseed(self, noise: int) -> None:
        """Nothing: these networks have no randomness of their own."""

    def _activations(self, named: dict[str, Tensor], x: Tensor) -> list[Tensor]:
        """The input (1, B, I) and every layer's output (P, B, H)."""
        hidden = [x.flatten(1).unsqueeze(0)]
        for layer in self.layers:
            z = self._affine(named, layer, hidden[-1])
            hidden.append(layer.activation.value(z))
        return hidden

    def _affine(self, named: dict[str, Tensor], layer: Layer, below: Tensor) -> Tensor:
        """below W^T + b with the layer's own W and b of `named`, for each copy."""
        weight = named[layer.weight].mT
        below = below.expand(len(weight), -1, -1)
        if layer.bias is None:
            return torch.bmm(below, weight)
        return torch.baddbmm(named[layer.bias].unsqueeze(1), below, weight)
