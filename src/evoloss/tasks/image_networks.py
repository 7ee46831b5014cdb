"""Convolutional base networks for small images, in the forms that were published for CIFAR.

LeNet-5 (LeCun et al. 1998), All-CNN-C (Springenberg et al. 2015), residual networks (He et al.
2016) and wide residual networks (Zagoruyko & Komodakis 2016). Images are (channels, height, width)
of any size from `SMALLEST` on: all but LeNet-5 average over whatever is left of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from evoloss.errors import UserError
from evoloss.tasks.task import NetworkFactory

Shape = tuple[int, int, int]

SMALLEST = {"lenet5": 12, "all-cnn-c": 9, "resnet8": 8, "resnet18": 8, "wrn-16-k": 8}
"""The least height and width by name; smaller images vanish, or leave nothing to normalise over."""


def image_network_factory(
    spec: str, input_shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> NetworkFactory:
    """A factory of the network of that name for (N, *input_shape) images.

    Raises: UserError if the inputs are no images, or too small, or k is no positive number.
    """
    name = "wrn-16-k" if spec.startswith("wrn-16-") else spec
    smallest = SMALLEST[name]
    if vocabulary is not None or len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        found = "text" if vocabulary is not None else f"inputs of shape {input_shape}"
        instead = "char-gru" if vocabulary is not None else "mlp:64,64"
        raise UserError(
            f"network '{spec}' takes images (channels, height, width) of at least {smallest} × "
            f"{smallest}, not {found}: use {instead}"
        )
    channels, height, width = input_shape
    if name == "lenet5":
        return partial(lenet5, (channels, height, width), outputs)
    if name == "all-cnn-c":
        return partial(all_cnn_c, channels, outputs)
    if name == "wrn-16-k":
        return partial(wide_resnet, channels, outputs, 2, _widening(spec))
    return partial(resnet8 if name == "resnet8" else resnet18, channels, outputs)


def lenet5(input_shape: Shape, outputs: int) -> nn.Sequential:
    """LeNet-5 with ReLU and max-pooling, as is usual; images below 32 × 32 are padded by 2."""
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


def all_cnn_c(channels: int, outputs: int) -> nn.Sequential:
    """All-CNN-C: nine convolutions, those of stride 2 in place of pooling, dropout, no batch norm.

    The last convolution has no ReLU, unlike the paper's, for raw outputs may be negative.
    """

    def convolution(
        inputs: int, width: int, size: int = 3, stride: int = 1, padding: int = 1
    ) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(inputs, width, size, stride, padding), nn.ReLU()

    return _he_initialised(
        nn.Sequential(
            nn.Dropout(0.2),
            *convolution(channels, 96),
            *convolution(96, 96),
            *convolution(96, 96, stride=2),
            nn.Dropout(0.5),
            *convolution(96, 192),
            *convolution(192, 192),
            *convolution(192, 192, stride=2),
            nn.Dropout(0.5),
            *convolution(192, 192, padding=0),
            *convolution(192, 192, size=1, padding=0),
            nn.Conv2d(192, outputs, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )


def resnet8(channels: int, outputs: int) -> nn.Sequential:
    """He et al. 2016, § 4.2 with n = 1: a stem and three stages of one block, 16, 32, 64 wide.

    Shortcuts have no parameters (option A). The paper's ResNet-20 is the same with n = 3.
    """
    return cifar_resnet(channels, outputs, (16, 32, 64), blocks=1, projected=False)


def resnet18(channels: int, outputs: int) -> nn.Sequential:
    """He et al. 2016, table 1, with a 3 × 3 stem of stride 1 and no pooling, for small images.

    Four stages of two blocks, 64, 128, 256, 512 wide, with projection shortcuts (option B).
    """
    return cifar_resnet(channels, outputs, (64, 128, 256, 512), blocks=2, projected=True)


def cifar_resnet(
    channels: int, outputs: int, widths: Sequence[int], blocks: int, projected: bool
) -> nn.Sequential:
    """A 3 × 3 stem, then a stage for each width; all stages but the first begin with stride 2."""
    layers: list[nn.Module] = [*_normed(channels, widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Block(inputs, width, stride, projected))
            inputs = width
    return _he_initialised(nn.Sequential(*layers, *_head(inputs, outputs)))


class Block(nn.Module):
    """Two 3 × 3 convolutions with batch norm, added to their input, then ReLU."""

    def __init__(self, inputs: int, width: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_normed(inputs, width, stride), nn.ReLU(), *_normed(width, width)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.shortcut = (
                nn.Sequential(
                    nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )
                if projected
                else Subsampled(stride, width - inputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, width, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class Subsampled(nn.Module):
    """The shortcut without parameters: every stride-th pixel, and channels of zeros."""

    def __init__(self, stride: int, more_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.more_channels = more_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + more_channels, ⌈H / stride⌉, ⌈W / stride⌉)."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.more_channels))


def wide_resnet(channels: int, outputs: int, blocks: int, k: int) -> nn.Sequential:
    """WRN-(6·blocks + 4)-k: three stages of pre-activated blocks, 16k, 32k, 64k wide."""
    layers: list[nn.Module] = [_convolution(channels, 16)]
    inputs = 16
    for stage, width in enumerate((16 * k, 32 * k, 64 * k)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(PreactivatedBlock(inputs, width, stride))
            inputs = width
    last = (nn.BatchNorm2d(inputs), nn.ReLU())
    return _he_initialised(nn.Sequential(*layers, *last, *_head(inputs, outputs)))


class PreactivatedBlock(nn.Module):
    """Batch norm and ReLU before each of two 3 × 3 convolutions, added to the block's input.

    Where the shape changes, the input is projected, and that after its activation.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            _convolution(inputs, width, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, width),
        )
        self.projection = None
        if stride > 1 or inputs != width:
            self.projection = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, width, ⌈H / stride⌉, ⌈W / stride⌉)."""
        active = self.activation(x)
        shortcut = x if self.projection is None else self.projection(active)
        return self.residual(active) + shortcut  # type: ignore[no-any-return]


def _convolution(inputs: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)


def _normed(inputs: int, width: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return _convolution(inputs, width, stride), nn.BatchNorm2d(width)


def _head(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs)


def _he_initialised(network: nn.Sequential) -> nn.Sequential:
    """Convolutions drawn as by He et al. 2015: torch's own start lets deep ReLU networks fade."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return network


def _widening(spec: str) -> int:
    k = spec.removeprefix("wrn-16-")
    if not (k.isascii() and k.isdigit() and int(k) > 0):
        raise UserError(
            f"network '{spec}': give the widening factor as a positive whole number, "
            "for example wrn-16-4"
        )
    return int(k)
