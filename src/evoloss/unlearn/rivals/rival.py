"""What an unlearning method that no expression of the loss language can say is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from evoloss.errors import UserError
from evoloss.unlearn.data.example import Example
from evoloss.unlearn.objective import Objective, Sets
from evoloss.unlearn.tokens import Encoder

Variant = Mapping[str, float]
"""One setting of a method's constants, by name."""


@dataclass(frozen=True)
class Context:
    """The model, without adapters yet, the data, and how long is trained.

    forget: the example of each row of the forget set. length: the most tokens that a row may have.
    batch: sequences of each set a step. rng: of the minibatches, then of what a method draws.
    """

    model: nn.Module
    encoder: Encoder
    sets: Sets
    forget: Sequence[Example]
    length: int
    batch: int
    steps: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Constant:
    """A constant of a method, and the values among which it is tuned."""

    default: float
    grid: tuple[float, ...]


@dataclass(frozen=True)
class Rival:
    """A method to compare with.

    source: its paper. lr: the learning rate that the method is known to need, if there is one.
    build: makes the objective of variants that have all constants.
    fitting: the constants as they are used with a model, where it does not allow for any.
    """

    name: str
    source: str
    constants: Mapping[str, Constant]
    build: Callable[[Sequence[Variant], Context], Objective]
    lr: float | None = None
    fitting: Callable[[Variant, nn.Module], Variant] = lambda variant, model: variant

    def make(self, variants: Sequence[Variant], context: Context) -> Objective:
        """The objective of several settings side by side; what one leaves out is the default.

        Raises: UserError if the method has no such constant.
        """
        defaults = {name: each.default for name, each in self.constants.items()}
        for variant in variants:
            if unknown := sorted(variant.keys() - defaults.keys()):
                raise UserError(
                    f"{self.name} has no constant '{unknown[0]}': it has {', '.join(defaults)}"
                )
        return self.build([{**defaults, **variant} for variant in variants], context)
