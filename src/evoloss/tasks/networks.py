"""Base networks by name: linear, mlp:64,64, lenet5, char-gru, or a user's own module:factory.

LeNet-5 has the layer sizes of LeCun et al. 1998 with ReLU and max-pooling, as is usual today; the
recurrent network is the gated recurrent unit of Cho et al. 2014 in the form that PyTorch uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.errors import UserError
from evoloss.tasks.plugin import call, did_you_mean, load_callable
from evoloss.tasks.task import NetworkFactory

NETWORKS = ("linear", "mlp:64,64", "lenet5", "char-gru", "module:factory")
"""How networks are named, for messages and help."""

_SMALLEST_IMAGE = 12  # smaller ones vanish in LeNet-5's second convolution


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
    elif spec == "lenet5":
        return _lenet5_factory(input_shape, outputs, vocabulary)
    elif spec == "char-gru":
        return _char_gru_factory(input_shape, outputs, vocabulary)
    elif ":" in spec:
        return users_factory(spec, load_callable(spec))
    else:
        hint = did_you_mean(name, ("linear", "mlp", "lenet5", "char-gru"))
        raise UserError(f"unknown network '{spec}'{hint}: the networks are {', '.join(NETWORKS)}")
    if vocabulary is not None:
        raise UserError(f"network '{spec}' takes numbers, but the inputs are text: use char-gru")
    return partial(dense, input_shape, hidden, outputs)


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


def lenet5(input_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """LeNet-5 for images (channels, height, width); those below 32 × 32 are padded by 2."""
    channels, height, width = input_shape
    padding = 2 if min(height, width) < 32 else 0

    def side(size: int) -> int:
        return ((size + 2 * padding - 4) // 2 - 4) // 2

    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side(height) * side(width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, outputs),
    )


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


def _lenet5_factory(
    input_shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> NetworkFactory:
    image = vocabulary is None and len(input_shape) == 3
    if not image or min(input_shape[1:]) < _SMALLEST_IMAGE:
        raise UserError(
            f"network 'lenet5' takes images (channels, height, width) of at least {_SMALLEST_IMAGE}"
            f" × {_SMALLEST_IMAGE}, not inputs of shape {input_shape}: use mlp:64,64"
        )
    channels, height, width = input_shape
    return partial(lenet5, (channels, height, width), outputs)


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
