"""How the learning rate of a training runs: the schedules of transformers, by the same formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("linear", "cosine", "constant")
"""How the rate runs after the warm-up: to 0 in a line, to 0 in half a cosine, or not at all."""


@dataclass(frozen=True)
class Schedule:
    """How one candidate's adapter is trained; the defaults are EvoMU's.

    steps: of the optimiser. clip: the largest norm of the gradient. kind: of `KINDS`. warmup: the
    share of the steps, rounded up, in which the rate rises from 0 in a line; never all of them.
    """

    steps: int
    lr: float = 5e-4
    clip: float = 1.0
    weight_decay: float = 0.0
    kind: str = "linear"
    warmup: float = 0.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0; 0 once the schedule is over."""
        return 0.0 if step >= self.steps else self.lr * self._share(step)

    def _share(self, step: int) -> float:
        rising = min(math.ceil(self.warmup * self.steps), self.steps - 1)
        if step < rising:
            return step / rising
        done = (step - rising) / (self.steps - rising)
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0 if self.kind == "constant" else 1.0 - done
