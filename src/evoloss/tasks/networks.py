"""Base networks by name: dense, convolutional, recurrent, of a package, or a user's own.

The recurrent network is the gated recurrent unit of Cho et al. 2014 in the form that PyTorch uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.errors import UserError
from evoloss.tasks.image_networks import SMALLEST, image_network_factory
from evoloss.tasks.model_packages import PACKAGES, package_factory
from evoloss.tasks.plugin import call, did_you_mean, load_callable
from evoloss.tasks.task import NetworkFactory

NETWORKS = (
    "linear", "mlp:64,64", "lenet5", "all-cnn-c", "resnet8", "resnet18", "wrn-16-4", "char-gru",
    "timm:NAME", "torchvision:NAME", "module:factory",
)  # fmt: skip
"""How networks are named, for messages and help."""


def network_factory(
    spec: str, input_shape: tuple[int, ...], outputs: int, vocabulary: int | None = None
) -> NetworkFactory:
    """A factory of fresh base networks for inputs (N, *input_shape) and raw outputs (N, outputs).

    vocabulary: for inputs of int64 character numbers, how many there are, padding (0) included.
    Raises: UserError if the name is unknown or does not suit the inputs.
    """
    name, _, sizes = spec.partition(":")
    if name == "mlp":
        hidden = _hidden_sizes(spec, sizes)
    elif spec == "linear":
        hidden = ()
    elif spec in SMALLEST or spec.startswith("wrn-16-"):
        return image_network_factory(spec, input_shape, outputs, vocabulary)
    elif spec == "char-gru":
        return _char_gru_factory(input_shape, outputs, vocabulary)
    elif name in PACKAGES:
        return users_factory(spec, package_factory(spec, input_shape, outputs))
    elif ":" in spec:
        return users_factory(spec, load_callable(spec))
    else:
        hint = did_you_mean(spec, (known.partition(":")[0] for known in NETWORKS[:-1]))
        raise UserError(f"unknown network '{spec}'{hint}: the networks are {', '.join(NETWORKS)}")
    if vocabulary is not None:
        raise UserError(f"network '{spec}' takes numbers, but the inputs are text: use char-gru")
    return partial(dense, input_shape, hidden, outputs)


def takes_numbers(network: str | NetworkFactory) -> bool:
    """Whether it is a named network that takes floats; one of a user's may take characters."""
    if not isinstance(network, str) or network == "char-gru":
        return False
    name, _, rest = network.partition(":")
    return not rest or name in ("mlp", *PACKAGES)


def dense(input_shape: tuple[int, ...], hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU in between, nothing else but a Flatten where inputs are not flat."""
    width = 1
    for size in input_shape:
        width *= size
    layers: list[nn.Module] = [] if len(input_shape) == 1 else [nn.Flatten()]
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class CharGRU(nn.Module):
    """A gated recurrent unit over one-hot characters, and a linear layer on its last state.

    Written out in plain tensor operations so that character 0, the padding, leaves the state as it
    is without a packed sequence, which `torch.func` does not take: the result does not depend on
    how far a text is padded.
    """

    def __init__(self, vocabulary: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.characters = vocabulary - 1  # without padding
        self.input = nn.Linear(self.characters, 3 * hidden)
        self.state = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, text: Tensor) -> Tensor:
        """text: (N, L) int64 character numbers. Returns: (N, outputs)."""
        weight = self.input.weight
        symbols = torch.arange(1, self.characters + 1, device=text.device)
        one_hot = (text.unsqueeze(-1) == symbols).to(weight.dtype)
        inputs = self.input(one_hot)  # (N, L, 3 * hidden), for all steps at once
        present = (text != 0).unsqueeze(-1)
        state = torch.zeros_like(inputs[:, 0, : self.state.in_features])
        for step in range(text.shape[1]):
            state = torch.where(present[:, step], self._next(inputs[:, step], state), state)
        return self.output(state)  # type: ignore[no-any-return]

    def _next(self, inputs: Tensor, state: Tensor) -> Tensor:
        reset_in, update_in, new_in = inputs.chunk(3, -1)
        reset_state, update_state, new_state = self.state(state).chunk(3, -1)
        reset = torch.sigmoid(reset_in + reset_state)
        update = torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + reset * new_state)
        return new + update * (state - new)


def users_factory(name: str, factory: Callable[[], Any]) -> NetworkFactory:
    """A user's factory, held to returning a module. Raises UserError for a module itself."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f"network '{name}' is a {type(factory).__name__}, not a function that makes one: every "
            "training needs a fresh network, so give a factory such as lambda: nn.Linear(10, 1)"
        )
    return partial(_users_network, name, factory)


def _hidden_sizes(spec: str, sizes: str) -> tuple[int, ...]:
    try:
        hidden = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        hidden = ()
    if not hidden or min(hidden) < 1:
        raise UserError(
            f"network '{spec}': give the sizes of the hidden layers as positive whole numbers, "
            "for example mlp:64,64"
        )
    return hidden


def _char_gru_factory(
    input_shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> NetworkFactory:
    if vocabulary is None or len(input_shape) != 1:
        raise UserError(
            "network 'char-gru' takes texts as (N, L) int64 character numbers, "
            f"not numbers of shape {input_shape}: use linear or mlp:64,64"
        )
    return partial(CharGRU, vocabulary, outputs)


def _users_network(spec: str, factory: Callable[[], Any]) -> nn.Module:
    network = call(spec, factory)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"network factory '{spec}' returns a {type(network).__name__}: "
            "it must return a torch.nn.Module"
        )
    return network
