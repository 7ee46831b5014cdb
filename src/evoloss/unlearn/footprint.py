"""How much memory trainings take, before they take it.

A GPU refuses what it has not got, but Linux ends the process instead. So what trains side by side
is what fits by an estimate: what autograd keeps of one pass of the longest row, for all rows.
`tests/unlearn/test_unlearn_footprint.py` holds it to the memory that steps take.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from evoloss.engine.memory import kept_by
from evoloss.unlearn.adapters import LoraSettings, attached
from evoloss.unlearn.log_probs import Sequences, token_log_probs
from evoloss.unlearn.objective import Sets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROCESS = 1 << 30
"""Bytes that a process holds besides the model and a step: the interpreter, torch, transformers."""
MARGINS = {"cpu": (1.75, 4.0)}
"""A step to what autograd keeps of it, and the same where its rows take turns: the backward pass
wants some too, and memory that is given back in pieces is not used again (measured: 1.5 to 1.73
and 2.5 to 3.3)."""
_OTHER = (1.25, 2.0)
"""Of a GPU, whose allocator is made for this; what is too little is found out there."""


@dataclass(frozen=True)
class Footprint:
    """In bytes. weights: of the model; adapter: a training step of one adapter, its minibatch of
    the longest rows; row: one such row, where rows take turns."""

    weights: int
    adapter: float
    row: float

    @property
    def process(self) -> int:
        """A process that has the model."""
        return PROCESS + self.weights

    def fitting(self, room: float, most: int) -> tuple[int, int | None]:
        """How many adapters train side by side in so many bytes, and how many rows at a time.

        None: all rows, where there is room for one adapter at least.
        """
        if room >= self.adapter:
            return min(most, int(room // self.adapter)), None
        return 1, max(1, int(room // self.row))


def footprint(model: PreTrainedModel, sets: Sets, lora: LoraSettings, batch: int) -> Footprint:
    """Of trainings on these sets, in minibatches of so many rows of each."""
    own = list(model.parameters())
    parts = [part.data for part in (sets.forget, sets.retain) if part is not None]
    with attached(model, 1, lora):
        kept = [kept_by(partial(token_log_probs, model, _longest(part)), own) for part in parts]
    counts = [min(batch, len(part)) for part in parts]
    adapter = sum(count * row for count, row in zip(counts, kept, strict=True))
    weights = sum(each.numel() * each.element_size() for each in own)
    whole, parted = MARGINS.get(model.device.type, _OTHER)
    return Footprint(weights, whole * adapter, parted * max(kept))


def _longest(data: Sequences) -> Sequences:
    """Its row of the most tokens."""
    return data.rows(data.attention.sum(1).argmax()[None].cpu())
