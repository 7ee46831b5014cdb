"""The device that networks are trained on: the CPU, or a GPU by CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evoloss.errors import UserError

CPU = torch.device("cpu")


def resolved(name: str) -> str:
    """The device that a setting names on this machine: `auto` is the GPU where there is one.

    Raises: UserError for a GPU that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        why = "" if torch.version.cuda else ", and this torch is built without CUDA"
        raise UserError(f"device '{name}': torch finds no GPU{why}: give cpu, or auto")
    if (torch.device(name).index or 0) >= count:
        which = "the only GPU" if count == 1 else f"the last of the {count} GPUs"
        raise UserError(f"device '{name}': {which} is cuda:{count - 1}")
    return name


def nearest(name: str) -> str:
    """The device of a setting, or the CPU where this machine has no such GPU."""
    try:
        return resolved(name)
    except UserError:
        return "cpu"


def check_promised(name: str) -> None:
    """Raises: UserError in a worker that was promised a GPU and has none."""
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(
            "a worker has no GPU that torch can use: check the driver of CUDA on its machine, or "
            "leave the GPUs out"
        )


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Within it, torch's random numbers on the CPU and on this device start from a seed."""
    beside = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(beside):
        torch.default_generator.manual_seed(seed)
        for each in beside:
            torch.cuda.default_generators[each].manual_seed(seed)
        yield


def finish(device: torch.device) -> None:
    """Waits for what the device has been given to do: a GPU works on while Python goes ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def described(device: torch.device) -> str:
    """The device with the model of its GPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return f"{device} {name}".rstrip()
