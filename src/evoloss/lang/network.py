"""ML³'s loss: a small neural network of the target and the prediction (Bechtle et al. 2021).

2-50-50-1, ReLU, no biases, the softplus of its output, for each (y, f). Its weights are part of
the loss, as numbers are; where a loss is written for reading they are left out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from evoloss.errors import LossError

NAME = "ml3"
INPUTS = ("y", "f")
SHAPES = ((50, 2), (50, 50), (1, 50))
"""Of the weight matrices, (out, in), first layer first."""
WEIGHTS = sum(rows * columns for rows, columns in SHAPES)

_FORMAT = f"<{WEIGHTS}f"


@dataclass(frozen=True, slots=True)
class Network:
    """The network with its weights: matrix after matrix, row by row, in single precision.

    packed: their bytes, little-endian; a search keeps thousands of networks.
    """

    packed: bytes

    def __post_init__(self) -> None:
        if len(self.packed) != struct.calcsize(_FORMAT):
            raise LossError(f"{len(self.packed)} bytes of weights: {NAME} has {WEIGHTS} of 4 bytes")
        if not all(map(math.isfinite, self.weights)):
            raise LossError(f"a weight of {NAME} is not finite: use finite numbers")

    @classmethod
    def of(cls, weights: Iterable[float]) -> Network:
        """From numbers, rounded to single precision. Raises LossError for other than 2,650."""
        numbers = tuple(weights)
        if len(numbers) != WEIGHTS:
            raise LossError(f"{len(numbers)} weights: {NAME} has {WEIGHTS}")
        try:
            return cls(struct.pack(_FORMAT, *numbers))
        except OverflowError:
            raise LossError(f"a weight of {NAME} is too large for single precision") from None

    @classmethod
    def decoded(cls, text: str) -> Network:
        """From what `encoded` gives. Raises LossError for any other text."""
        try:
            return cls(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise LossError(f"these are no weights: {error}") from error

    @property
    def encoded(self) -> str:
        """The weights as a text without blanks (base 64)."""
        return base64.b64encode(self.packed).decode("ascii")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights as numbers."""
        return struct.unpack(_FORMAT, self.packed)

    @property
    def digits(self) -> tuple[str, ...]:
        """The weights in so many digits that they read back as the same single-precision number."""
        return tuple(f"{weight:.9g}" for weight in self.weights)

    @property
    def digest(self) -> str:
        """Ten characters that tell this network from others, for reading."""
        return hashlib.blake2b(self.packed, digest_size=5).hexdigest()
