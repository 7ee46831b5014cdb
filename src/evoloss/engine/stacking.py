"""Chooses how the copies of a network are batched: by its structure, or by a short trial.

Which way is fastest depends on the network and the machine: on two cores LeNet-5 trains fastest
one copy after the other, while its Jacobian-vector product at shared weights is fastest in
batches of a few. So each operation is timed for itself. The choice changes results in the last
bits, hence it is kept per machine, and a run stores its own, so that equal seeds stay equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evoloss.engine.batch_norm import Statistics
from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.device import described, finish
from evoloss.engine.remembered import remembered
from evoloss.engine.stack import LoopStack, Pullback, Stack, VmapStack, parameters
from evoloss.errors import UserError

WAYS = ("loop", "vmap:6", "vmap")
OPERATIONS = ("train", "pull_shared", "push")
_REPEATS = 3
_WORTH_THREADS = 10_000_000
"""Products of a layer's weight and an input, a step: from here on torch's threads pay."""


@dataclass(frozen=True)
class MixedStack:
    """A stack that does each operation in its own way."""

    train: Stack
    pull_shared: Stack
    push_shared: Stack

    @property
    def repeatable(self) -> bool:
        return self.train.repeatable

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        return self.train.forward(theta, x)

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        return (self.pull_shared if len(theta) == 1 else self.train).pull(theta, x)

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        return self.push_shared.push(theta, x, along)

    def statistics(self, theta: Tensor, batches: Sequence[Tensor]) -> Statistics | None:
        return self.train.statistics(theta, batches)

    def predict(self, theta: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self.train.predict(theta, x, statistics)

    def reseed(self, noise: int) -> None:
        for stack in (self.train, self.pull_shared, self.push_shared):
            stack.reseed(noise)


def make_stack(module: nn.Module, choice: dict[str, str]) -> Stack:
    """The stack of a choice, as `choose` returns it."""
    if choice["train"] == "dense":
        layers = dense_layers(module)
        if layers is None:
            raise UserError(
                "stacking 'dense' wants a network of Linear and activation layers in a row: "
                "use --stacking auto"
            )
        return DenseStack(module, layers)
    ways = [choice[operation] for operation in OPERATIONS]
    made = {way: _make(module, way) for way in ways}
    return MixedStack(*(made[way] for way in ways))


def stacked_densely(module: nn.Module, stacking: str) -> bool:
    """Whether copies become a `DenseStack`. stacking: as of `choose`."""
    return stacking == "dense" or (stacking == "auto" and dense_layers(module) is not None)


def choose(module: nn.Module, stacking: str, copies: int, x: Tensor) -> dict[str, str]:
    """The way of each operation for so many copies on a minibatch x.

    stacking: `auto`, or the way that is wanted for all of them.
    """
    threads = _threads(module, copies, x)
    if stacked_densely(module, stacking):
        stacking = "dense"
    if stacking != "auto":
        choice = dict.fromkeys(OPERATIONS, stacking)
        return {**choice, "threads": threads}
    about = repr(module), copies, tuple(x.shape), described(x.device)
    return remembered("stacking", about, lambda: {**_trial(module, copies, x), "threads": threads})


def _make(module: nn.Module, way: str) -> Stack:
    if way == "loop":
        return LoopStack(module)
    chunk = way.partition(":")[2]
    return VmapStack(module, int(chunk) if chunk else None)


def _trial(module: nn.Module, copies: int, x: Tensor) -> dict[str, str]:
    """The fastest way of each operation; a way that the module does not allow is passed over."""
    shared = parameters(module)[None]
    own = shared.repeat(copies, 1)
    seconds: dict[str, dict[str, float]] = {operation: {} for operation in OPERATIONS}
    for way in WAYS:
        stack = _make(module, way)
        gradient = torch.ones(copies, *stack.predict(shared, x).shape[1:], device=x.device)
        for operation, run in (
            ("train", lambda s=stack, g=gradient: s.pull(own, x)[1](g)),
            ("pull_shared", lambda s=stack, g=gradient: s.pull(shared, x)[1](g)),
            ("push", lambda s=stack: s.push(shared, x, own)),
        ):
            try:
                seconds[operation][way] = _seconds(run, x.device)
            except RuntimeError:
                continue
    impossible = [operation for operation in OPERATIONS if not seconds[operation]]
    if impossible:
        raise UserError(
            f"the network cannot be differentiated ({', '.join(impossible)} failed): "
            "use differentiable torch operations, or --local-search none with --stacking loop"
        )
    return {name: min(times, key=lambda way: times[way]) for name, times in seconds.items()}


def _threads(module: nn.Module, copies: int, x: Tensor) -> str:
    """How many torch threads train the copies fastest: one, or as many as torch would take.

    A rule and not a trial: the count changes results in the last bits, and a trial on a busy
    machine would come out differently the next time.
    """
    products = copies * len(x) * parameters(module).numel()
    return str(torch.get_num_threads() if products > _WORTH_THREADS else 1)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        finish(device)
        start = time.perf_counter()
        run()
        finish(device)
        times.append(time.perf_counter() - start)
    return min(times)
