"""How many networks fit into a device's memory, and what is done where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from evoloss.errors import UserError

S = TypeVar("S")
T = TypeVar("T")

SHARE = 0.8
"""Of the memory that is free on a GPU: torch's allocator and its libraries want some too."""
_ROWS_OF_WEIGHTS = 6
"""θ, the velocity, the gradient, the state to go back to, and two buffers of a recorded step."""
_PASSES = 3
"""What a forward pass keeps is also differentiated, backwards and along a direction."""


def budget(device: torch.device, given: float | None) -> float | None:
    """Bytes that networks may take; None for no limit. given: in GiB."""
    if given is not None:
        return given * 2**30
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return SHARE * float(free)


def bytes_per_copy(module: nn.Module, x: Tensor, trials: int, unroll: int) -> int:
    """An estimate for one candidate, from one forward pass of one network on a minibatch.

    trials: trainings that a fitness averages over, which take their steps side by side; unroll:
    training steps that tuning looks through, whose weights are kept.
    """
    weights = sum(each.numel() * each.element_size() for each in module.parameters())
    passes = _PASSES * kept_by(lambda: module(x), (*module.parameters(), x))
    tuning = 2 * unroll * weights if unroll > 1 else 0
    return max(1, trials) * (_ROWS_OF_WEIGHTS * weights + passes) + tuning


def kept_by(work: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of some work for the backward pass, and of what comes out.

    own: what is there anyway, weights and inputs, and does not count.
    """
    there = {each.untyped_storage().data_ptr() for each in own}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that its place is not taken by the next one
        return tensor

    alive: list[Tensor] = []
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        output = work()
    return sum(kept.values()) + int(output.nbytes)


def fitting(most: float | None, a_copy: int, copies: int) -> int:
    """How many of so many copies are trained together. most: bytes, None for no limit.

    Raises: UserError if there is no room for one.
    """
    if most is None:
        return copies
    if a_copy > most:
        raise UserError(
            f"one network takes about {a_copy / 2**30:.2g} GiB and {most / 2**30:.2g} GiB are "
            "given: use a smaller batch or network, or --set memory=GIB"
        )
    return min(copies, int(most // a_copy))


def in_parts(
    chosen: Sequence[S],
    together: int,
    work: Callable[[Sequence[S]], list[T]],
    short: Callable[[BaseException], bool],
    fewer: Callable[[int], None],
    smaller: Callable[[], bool] = lambda: False,
) -> list[T]:
    """The work on so many at a time; half as many where memory does not do.

    short: whether an error says so; fewer: told how many at a time from there on. smaller: makes
    the work on one alone take less, and says whether it can; if not, the error is raised.
    """
    found: list[T] = []
    while len(found) < len(chosen):
        part = chosen[len(found) : len(found) + together]
        try:
            found += work(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if not short(error) or (len(part) == 1 and not smaller()):
                raise
        # After the error is gone, and with it what it held.
        if len(part) > 1:
            together = len(part) // 2
            fewer(together)
    return found


def gpu_is_short(error: BaseException) -> bool:
    """Whether a GPU's memory did not do."""
    return isinstance(error, torch.OutOfMemoryError)
