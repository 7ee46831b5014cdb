"""Training steps that a GPU repeats without Python: recorded once, then replayed (CUDA graphs).

A step of small networks is hundreds of short kernels, and Python takes longer to start them than
the GPU to run them. A graph starts them all at once, but it is bound to the memory that it was
recorded on: so what changes from step to step lies in buffers that are filled before a replay. The
losses are such data too (see `triton_form`): a graph belongs to shapes, network and optimiser, and
serves all generations of a search.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evoloss.engine import triton_form
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.stack import Stack
from evoloss.engine.triton_form import Walked
from evoloss.lang.types import Output

WARM_UPS = 3
"""Runs before the recording, in which libraries choose their kernels and take their memory."""
_KEPT = 24
"""Graphs at most: one for each number of losses that a generation comes down to, and stage."""

Tensors = Sequence[Tensor]
Function = Callable[[Tensors, Tensors], tuple[Tensor, ...]]


class Recorder(Protocol):
    """Records what a function does to tensors, and does it again."""

    def record(self) -> AbstractContextManager[object]:
        """What is done within it is recorded."""

    def replay(self) -> None:
        """Does it again, on the same memory."""


class CudaGraph:
    """The `Recorder` of CUDA."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self) -> AbstractContextManager[object]:
        return torch.cuda.graph(self.graph)

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """A function of tensors, recorded on buffers of its own.

    The function takes what changes from call to call, and what stays. It depends on nothing else,
    reads no number back to Python, and may update what stays in place.
    """

    def __init__(
        self, function: Function, changing: Tensors, staying: Tensors, recorder: Recorder
    ) -> None:
        self.changing, self.staying = (
            [each.detach().clone() for each in group] for group in (changing, staying)
        )
        _warm_up(lambda: function(self.changing, self.staying))
        with recorder.record():
            self.results = function(self.changing, self.staying)
        self.recorder = recorder

    def begin(self, staying: Tensors) -> None:
        """Fills the buffers of what stays."""
        _fill(self.staying, staying)

    def __call__(self, changing: Tensors) -> tuple[Tensor, ...]:
        """The results, which the next call overwrites."""
        _fill(self.changing, changing)
        self.recorder.replay()
        return self.results


def _fill(buffers: Tensors, tensors: Tensors) -> None:
    for buffer, each in zip(buffers, tensors, strict=True):
        buffer.copy_(each)


def _warm_up(function: Callable[[], object]) -> None:
    """On a stream of its own, as CUDA wants it before a recording."""
    if not torch.cuda.is_available():
        function()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)


def side_by_side(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    """Work that is independent of its likes, on a GPU each on a stream of its own.

    A graph that is recorded of it has as many branches, which the GPU runs at the same time.
    """
    if len(numbers) == 1 or not torch.cuda.is_available():
        for number in numbers:
            work(number)
        return
    here = torch.cuda.current_stream()
    streams = [torch.cuda.Stream() for _ in numbers]
    for number, stream in zip(numbers, streams, strict=True):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            work(number)
    for stream in streams:
        here.wait_stream(stream)


class Graphs:
    """The captured functions of one stack of networks, by their shapes; the oldest are dropped."""

    def __init__(self, recorder: Callable[[], Recorder] = CudaGraph) -> None:
        self.recorder = recorder
        self._kept: OrderedDict[Hashable, Captured] = OrderedDict()

    def clear(self) -> None:
        """Drops all, with their memory."""
        self._kept.clear()

    def begun(
        self, what: Hashable, function: Function, changing: Tensors, staying: Tensors
    ) -> Captured:
        """The captured function, its buffers filled. what: all that it depends on besides them."""
        shapes = tuple((each.shape, each.dtype) for each in (*changing, *staying))
        key = what, len(changing), shapes
        if key not in self._kept:
            self._kept[key] = Captured(function, changing, staying, self.recorder())
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        self._kept[key].begin(staying)
        return self._kept[key]


def capturable(stack: Stack, losses: LossPopulation, tensor: Tensor) -> bool:
    """Whether steps can be recorded: the losses are data, and the network draws no numbers."""
    return losses.form(tensor) == "triton" and stack.repeatable


@dataclass(frozen=True)
class WalkedLosses:
    """Losses that are tensors, programs and φ: what a step needs of a `LossPopulation`."""

    programs: Walked
    phi: Tensor

    @classmethod
    def of(cls, tensors: Tensors) -> WalkedLosses:
        """From what `tensors_of` gives."""
        return cls(Walked(*tensors[1:]), tensors[0])

    def initial_phi(self, device: torch.device) -> Tensor:
        """φ, which is on that device."""
        return self.phi

    def gradient(self, raw: Tensor, target: Tensor, phi: Tensor, output: Output) -> Tensor:
        """As `LossPopulation.gradient`."""
        return triton_form.gradient(self.programs, raw, target, phi, output)

    def curvature(
        self, prediction: Tensor, target: Tensor, phi: Tensor, along: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `LossPopulation.curvature`."""
        return triton_form.curvature(self.programs, prediction, target, phi, along)


def tensors_of(losses: LossPopulation, phi: Tensor) -> tuple[Tensor, ...]:
    """φ and the programs, with room up to a power of two, so that few graphs serve a search."""
    nodes = int(losses.programs.start[-1])
    walked = Walked.of(losses.programs, phi.device, _power_of_two(nodes))
    return padded(phi), *walked.tensors


def padded(phi: Tensor) -> Tensor:
    """φ (P, N) with room up to a power of two."""
    return torch.nn.functional.pad(phi, (0, _power_of_two(phi.shape[1]) - phi.shape[1]))


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
