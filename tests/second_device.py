"""A second device without one: tensors that say they are elsewhere, and are computed here.

A tensor on it holds one on the CPU. Every operation is done with what the tensors hold; one that
mixes devices is refused as CUDA refuses it, and so is NumPy. So a forgotten move shows, and all
numbers are those of the CPU. Registers a device with torch for good: for a process of its own.
"""

import os
import sys
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
ELSEWHERE = torch.device("elsewhere", 0)

MIXED = ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_")
"""What CUDA takes with tensors of both devices: moves, and places given on the CPU."""


WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "tolist")
"""What hands numbers of the device to Python, or has a size that depends on them."""

crossings = []
"""What so far has made a GPU wait: such operations, and moves between the devices."""


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class Elsewhere(torch.Tensor):
    """A tensor on the second device; `held`: its numbers."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=ELSEWHERE,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"Elsewhere({self.held})"

    def tolist(self):
        crossings.append("tolist")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class _TwoDevices(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


@contextmanager
def two_devices():
    """Within it, tensors can be made on the second device, or moved there."""
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` is a copy from the CPU, then
    with _TwoDevices():
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(False)


def leave():
    """Ends the process well, and at once.

    Autograd's thread for a device that is made in Python may ask for the interpreter while that
    ends, which aborts the process: `terminate called without an active exception`.
    """
    sys.stdout.flush()
    os._exit(0)


def held(tensor):
    """The numbers of a tensor of either device."""
    return tensor.held if isinstance(tensor, Elsewhere) else tensor


def check_together(what, *tensors):
    """Raises MixedDevices if some are on the one device and some on the other."""
    there = [isinstance(each, Elsewhere) for each in tensors]
    if any(there) and not all(there):
        shapes = [f"{tuple(each.shape)} {each.device.type}" for each in tensors]
        raise MixedDevices(f"{what}: {', '.join(shapes)}")


def _computed(function, args, kwargs):
    name = function.overloadpacket.__name__
    tensors = _tensors(args, kwargs)
    _note(name, tensors, kwargs)
    there = any(isinstance(each, Elsewhere) for each in tensors)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == ELSEWHERE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name not in MIXED:  # a single number may come from the CPU
        check_together(function, *(each for each in tensors if each.dim()))
    if name == "_efficientzerotensor":  # that has no memory, which only autograd understands
        function = torch.ops.aten.zeros.default
    kwargs = {key: _held(each) for key, each in kwargs.items()}
    found = function(*map(_held, args), **kwargs)
    if name.endswith("_") and not name.startswith("_"):
        return args[0]
    return _there(found) if there else found


def _tensors(args, kwargs):
    """Those that an operation is given, alone or in lists: it takes nothing that is nested deeper.

    `torch.utils._pytree` looks at every depth, which takes longer than what is computed here.
    """
    found = []
    for each in (*args, *kwargs.values()):
        parts = each if isinstance(each, list | tuple) else (each,)
        found += [part for part in parts if isinstance(part, torch.Tensor)]
    return found


def _note(name, tensors, kwargs):
    """Notes an operation among `crossings` if it is one."""
    kinds = {isinstance(each, Elsewhere) for each in tensors if each.dim()}
    if name == "_to_copy" and kwargs.get("device") is not None:
        kinds.add(torch.device(kwargs["device"]).type == ELSEWHERE.type)
    masked = name.startswith("index") and any(each.dtype == torch.bool for each in tensors[1:])
    waits = (masked or name in WAITING) and any(isinstance(each, Elsewhere) for each in tensors)
    if waits or len(kinds) == 2:
        crossings.append(name)


def _held(given):
    """An argument, or a list of them, with the tensors' numbers."""
    if isinstance(given, list | tuple):
        return type(given)(map(_held, given))
    return held(given)


def _there(found):
    """A result, or several, with tensors on the second device."""
    if isinstance(found, list | tuple):
        return type(found)(map(_there, found))
    return Elsewhere(found) if isinstance(found, torch.Tensor) else found
