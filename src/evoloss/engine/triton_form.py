"""The population's losses by generated Triton kernels, for GPUs: as `torch_form`, but fused.

Programs that differ only in their numbers share a kernel, which Triton compiles at its first use;
that takes about a second and is kept on disk. Without a GPU the kernels run in Triton's
interpreter, where the variable TRITON_INTERPRET is 1: slowly, and with the same results.
"""

from __future__ import annotations

import importlib.util
import linecache
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.optimisers import Adam
from evoloss.engine.outputs import push_forward, transform
from evoloss.engine.program import CONSTANT, ENTRY, SECTOR, Programs
from evoloss.engine.triton_source import Node, nodes_of, source
from evoloss.lang.types import Output

if TYPE_CHECKING:
    from evoloss.engine.loss_population import LossPopulation

BLOCK = 256


@dataclass(frozen=True)
class Kernels:
    """The programs of a population, sorted by their kernels.

    groups: nodes, and which programs (at most P) they are of. constants: (P, C), padded with 0.
    """

    groups: tuple[tuple[tuple[Node, ...], Tensor], ...]
    constants: Tensor
    placed: dict[torch.device, Kernels] = field(default_factory=dict)

    def on(self, device: torch.device) -> Kernels:
        """The same with its tensors on a device."""
        if device not in self.placed:
            groups = tuple((nodes, rows.to(device)) for nodes, rows in self.groups)
            self.placed[device] = Kernels(groups, self.constants.to(device))
        return self.placed[device]


def kernels_of(programs: Programs) -> Kernels:
    """What a population's programs need to run. They must be without lookups."""
    rows: dict[tuple[Node, ...], list[int]] = defaultdict(list)
    numbers = []
    for index in range(len(programs)):
        rows[nodes_of(programs, index)].append(index)
        own = slice(programs.start[index], programs.start[index + 1])
        numbers.append(programs.constant[own][programs.code[own] == CONSTANT])
    constants = np.zeros((len(programs), max(map(len, numbers), default=0)))
    for index, own_numbers in enumerate(numbers):
        constants[index, : len(own_numbers)] = own_numbers
    groups = tuple((nodes, torch.tensor(found)) for nodes, found in rows.items())
    return Kernels(groups, torch.from_numpy(constants))


def usable(programs: Programs, tensor: Tensor) -> bool:
    """Whether these programs can run by Triton where this tensor is."""
    if np.isin(programs.code[: programs.start[-1]], (SECTOR, ENTRY)).any():
        return False  # a network's lookups are searches in a table
    return _installed() and (tensor.is_cuda or interpreting())


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether Triton, which is installed, runs kernels in its interpreter."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def values_and_gradients(
    population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (P,), gradients in the prediction (P, B, C) and in the weights (P, N)."""
    made = _Made(population, prediction, target, phi, sums=True)
    value = made.double(made.blocks)
    _launch("backward", population, prediction, target, phi, value, made.slope, made.sums)
    scale = 1.0 / len(target)
    return ((scale * value.sum(1)).to(prediction.dtype), *made.scaled(scale))


def gradient(
    population: LossPopulation, raw: Tensor, target: Tensor, phi: Tensor, output: Output
) -> Tensor:
    """(P, B, C) gradient in the raw prediction, through the output transform."""
    f = transform(raw.detach(), output)
    made = _Made(population, f, target, phi)
    _launch("gradient", population, f, target, phi, made.slope)
    return push_forward(f, made.scaled(1.0 / len(target))[0], output)


def curvature(
    population: LossPopulation,
    prediction: Tensor,
    target: Tensor,
    phi: Tensor,
    along: Tensor,
    along_phi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The Hessian in (prediction, φ) times a direction."""
    made = _Made(population, prediction, target, phi, sums=True)
    w = along.detach().to(prediction).contiguous()
    z = torch.zeros_like(phi) if along_phi is None else along_phi
    z = _double(z, prediction.device)
    _launch("curvature", population, prediction, target, phi, w, z, made.slope, made.sums)
    return made.scaled(1.0 / len(target))


def minimise(
    population: LossPopulation,
    raw: Tensor,
    target: Tensor,
    phi: Tensor,
    output: Output,
    steps: int,
    lr: float,
) -> Tensor:
    """Raw predictions (P, B, C) after `steps` of Adam on each loss, from raw (B, C)."""
    adam = Adam(lr)
    free = raw.double().expand(len(population), *raw.shape).clone()
    state = adam.init(free)
    for _ in range(steps):
        slope = gradient(population, free, target.double(), phi, output)
        free, state = adam.update(free, slope, state)
    return free


class _Made:
    """Room for what a kernel writes, and its results: slope (P, B·C), sums (P, blocks, N)."""

    def __init__(
        self, population: LossPopulation, prediction: Tensor, target: Tensor, phi: Tensor,
        sums: bool = False,
    ) -> None:  # fmt: skip
        self.prediction, self.target, self.phi = prediction, target, phi
        self.copies = len(population)
        self.blocks = -(-target.numel() // BLOCK)
        self.slope = self.double(target.numel())
        self.sums = self.double(self.blocks, phi.shape[1] if sums else 0)

    def double(self, *shape: int) -> Tensor:
        """Zeros for each copy."""
        return torch.zeros(self.copies, *shape, dtype=torch.float64, device=self.prediction.device)

    def scaled(self, scale: float) -> tuple[Tensor, Tensor]:
        """The gradients in the prediction (P, B, C) and in φ (P, N), times the scale."""
        slope = (scale * self.slope).to(self.prediction.dtype)
        by_phi = (scale * self.sums.sum(1)).to(self.phi.device)
        return slope.view(self.copies, *self.target.shape), by_phi


def _launch(
    name: str,
    population: LossPopulation,
    prediction: Tensor,
    target: Tensor,
    phi: Tensor,
    *others: Tensor,
) -> None:
    """One kernel for each group of programs. others: what the kernel reads and writes besides."""
    device, size = prediction.device, target.numel()
    kernels = population.triton_kernels.on(device)
    f = prediction.detach().reshape(len(prediction), -1).contiguous()
    y, weights = target.detach().to(device).reshape(-1).contiguous(), _double(phi, device)
    numbers = (size, size if len(f) > 1 else 0, phi.shape[1], kernels.constants.shape[1])
    for nodes, rows in kernels.groups:
        kernel = getattr(_module(nodes), name)
        grid = (len(rows), -(-size // BLOCK))
        # Without fused products w y - w f is zero where y = f, as in the kernels of the CPU.
        with torch.cuda.device_of(prediction):
            kernel[grid](
                rows, f, y, weights, kernels.constants, *numbers, *others, BLOCK=BLOCK,
                enable_fp_fusion=False,
            )  # fmt: skip


def _double(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, torch.float64).contiguous()


@cache
def _module(nodes: tuple[Node, ...]) -> ModuleType:
    """The generated module of a program. Triton reads its text, which linecache keeps for it."""
    text = source(nodes)
    module = ModuleType(f"evoloss_triton_{len(linecache.cache)}")
    name = f"<{module.__name__}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module
