"""The population's losses by generated Triton kernels, for GPUs: as `torch_form`, but fused.

The kernels walk the programs, which are data, so they are compiled once for each data type of the
predictions, at their first use, and kept on disk by Triton. Without a GPU they run in Triton's
interpreter, where the variable TRITON_INTERPRET is 1: slowly, and with the same results.
"""

from __future__ import annotations

import importlib.util
import linecache
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evoloss.engine.optimisers import minimised
from evoloss.engine.outputs import push_forward, transform
from evoloss.engine.program import ENTRY, FIRST_OPCODE, SECTOR, Programs
from evoloss.engine.triton_source import source
from evoloss.lang.ops import ELEMENTWISE
from evoloss.lang.types import Output

BLOCK = 256
WARPS = 8
"""One element a thread: with more, the many branches would take long to compile."""
_ARITIES = np.array([0] * FIRST_OPCODE + [row.arity for row in ELEMENTWISE])


@dataclass(frozen=True)
class Walked:
    """Programs as the kernels read them, on one device; see `Programs` for what is in them.

    Operands that a node does not have are −1. There may be room for more nodes than are used.
    """

    code: Tensor
    operands: Tensor
    slots: Tensor
    live: Tensor
    constant: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.start) - 1

    @classmethod
    def of(cls, programs: Programs, device: torch.device, room: int = 0) -> Walked:
        """Programs without lookups, with room for so many nodes at least."""
        nodes = int(programs.start[-1])
        missing = np.arange(3) >= _ARITIES[programs.code][:, None]
        arrays = (
            programs.code, np.where(missing, -1, programs.operands), programs.slots,
            programs.live.astype(np.int64), programs.constant[:nodes],
        )  # fmt: skip
        padding = max(0, room - nodes)
        padded = [np.pad(each, [(0, padding)] + [(0, 0)] * (each.ndim - 1)) for each in arrays]
        return cls(*(torch.from_numpy(each).to(device) for each in (*padded, programs.start)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of the kernels' arguments."""
        return self.code, self.operands, self.slots, self.live, self.constant, self.start


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
    programs: Walked, prediction: Tensor, target: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (P,), gradients in the prediction (P, B, C) and in the weights (P, N)."""
    made = _Made(programs, prediction, target, phi)
    value, sums = made.each_block(), made.each_block(phi.shape[1])
    made.launch("backward", made.scratch(), value, made.slope, sums)
    found = made.scaled(value.sum(1)).to(prediction.dtype)
    return found, made.gradient(), made.scaled(sums.sum(1)).to(phi.device)


def gradient(programs: Walked, raw: Tensor, target: Tensor, phi: Tensor, output: Output) -> Tensor:
    """(P, B, C) gradient in the raw prediction, through the output transform."""
    f = transform(raw.detach(), output)
    made = _Made(programs, f, target, phi)
    made.launch("gradient", made.scratch(), made.slope)
    return push_forward(f, made.gradient(), output)


def curvature(
    programs: Walked,
    prediction: Tensor,
    target: Tensor,
    phi: Tensor,
    along: Tensor,
    along_phi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The Hessian in (prediction, φ) times a direction."""
    made = _Made(programs, prediction, target, phi)
    w = along.detach().to(prediction).contiguous()
    z = _double(torch.zeros_like(phi) if along_phi is None else along_phi, prediction.device)
    sums = made.each_block(phi.shape[1])
    rows = [made.scratch() for _ in range(3)]
    made.launch("curvature", rows[0], w, z, rows[1], rows[2], made.slope, sums)
    return made.gradient(), made.scaled(sums.sum(1)).to(phi.device)


def minimise(
    programs: Walked,
    raw: Tensor,
    target: Tensor,
    phi: Tensor,
    output: Output,
    steps: int,
    lr: float,
) -> Tensor:
    """Raw predictions (P, B, C) after `steps` of Adam on each loss, from raw (B, C)."""
    y = target.double()
    slope = partial(gradient, programs, target=y, phi=phi, output=output)
    return minimised(raw, len(programs), slope, steps, lr)


class _Made:
    """One call of a kernel: what it reads, room for what it writes, and the results."""

    def __init__(self, programs: Walked, prediction: Tensor, target: Tensor, phi: Tensor) -> None:
        self.programs = programs
        self.shape, self.dtype = (len(programs), *target.shape), prediction.dtype
        self.device = prediction.device
        self.scale = 1.0 / len(target)
        self.size = target.numel()
        self.blocks = -(-self.size // BLOCK)
        self.f = prediction.detach().reshape(len(prediction), -1).contiguous()
        self.y = target.detach().to(self.device).reshape(-1).contiguous()
        self.phi = _double(phi, self.device)
        self.slope = torch.empty(len(programs), self.size, dtype=torch.float64, device=self.device)

    def each_block(self, *shape: int) -> Tensor:
        """Zeros for each program and block."""
        shape = (len(self.programs), self.blocks, *shape)
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def scratch(self) -> Tensor:
        """A row for each node."""
        shape = len(self.programs.code), self.blocks * BLOCK
        return torch.empty(shape, dtype=torch.float64, device=self.device)

    def launch(self, name: str, *others: Tensor) -> None:
        """The kernel on all programs. others: what it reads and writes besides."""
        stride = self.size if len(self.f) > 1 else 0
        numbers = self.size, stride, self.phi.shape[1], self.blocks * BLOCK
        tensors = (*self.programs.tensors, self.f, self.y, self.phi)
        launch(name, (len(self.programs), self.blocks), tensors, numbers, (self.scratch(), *others))

    def scaled(self, sums: Tensor) -> Tensor:
        """The mean over rows, of sums over elements."""
        return self.scale * sums

    def gradient(self) -> Tensor:
        """The kernel's slope as a gradient in the prediction (P, B, C)."""
        return self.scaled(self.slope).to(self.dtype).view(self.shape)


def launch(
    name: str,
    grid: tuple[int, int],
    tensors: tuple[Tensor, ...],
    numbers: tuple[int, ...],
    others: tuple[Tensor, ...],
) -> None:
    """Starts a kernel where its tensors are."""
    kernel = getattr(_module(), name)
    # Without fused products w y - w f is zero where y = f, as in the kernels of the CPU.
    with torch.cuda.device_of(tensors[0]):
        kernel[grid](
            *tensors, *numbers, *others, BLOCK=BLOCK, enable_fp_fusion=False, num_warps=WARPS
        )


def _double(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, torch.float64).contiguous()


@cache
def _module() -> Any:
    """The generated module. Triton reads its text, which linecache keeps for it."""
    text, name = source(), "<evoloss_triton>"
    module = ModuleType("evoloss_triton")
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module
