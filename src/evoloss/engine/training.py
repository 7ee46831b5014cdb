"""Base training: many networks side by side, each under its own loss, on the same minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evoloss.engine.captured import (
    Graphs,
    Tensors,
    WalkedLosses,
    capturable,
    side_by_side,
    tensors_of,
)
from evoloss.engine.device import CPU, seeded
from evoloss.engine.fused import Table, fused
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.outputs import transform
from evoloss.engine.stack import Stack, parameters
from evoloss.lang.types import Output

_BANK_BYTES = 256 * 2**20
_PREDICTED_ROWS = 2048
_PREDICTED_NUMBERS = 2**19
"""Inputs at a time: so few images that their feature maps stay near the processor's caches."""
_CALIBRATION_BATCHES = 16
_GATHERED_BYTES = 64 * 2**20
"""Minibatches that are gathered at a time: a step is then given them by one copy."""


class InitialWeights:
    """Fresh weights of a base network by number; the same number gives the same weights.

    Making a module costs more than training it for a step, so what fits in 256 MiB is kept.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        network: Callable[[], nn.Module],
        device: torch.device = CPU,
    ) -> None:
        self.seeds = seeds
        self.network = network
        self.device = device
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, number: int) -> Tensor:
        """(1, D) weights."""
        if number not in self._kept:
            row = fresh_weights(self.network, self.seeds[number], self.device)
            if row.numel() * row.element_size() * (len(self._kept) + 1) > _BANK_BYTES:
                return row
            self._kept[number] = row
        return self._kept[number]


def fresh_network(network: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A new network of a seed; torch's global generator is left as it was."""
    with seeded(seed):
        return network()


def fresh_weights(
    network: Callable[[], nn.Module], seed: int, device: torch.device = CPU
) -> Tensor:
    """(1, D) weights of a new network, the same on every device: they are drawn on the CPU."""
    return parameters(fresh_network(network, seed))[None].to(device)


def minibatches(rows: int, batch: int, steps: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(steps, min(batch, rows)) row numbers: one shuffled pass after another.

    What is left over at the end of a pass is dropped, so that all batches are of one size.
    """
    batch = min(batch, rows)
    a_pass = rows // batch
    order = [
        rng.permutation(rows)[: a_pass * batch].reshape(a_pass, batch)
        for _ in range(-(-steps // a_pass))
    ]
    return np.concatenate(order)[:steps]


@dataclass(frozen=True)
class Trained:
    """Where a stack of base trainings stands. theta, velocity: (P, D); steps: done so far."""

    theta: Tensor
    velocity: Tensor
    steps: int = 0

    @classmethod
    def start(cls, initial: Tensor, copies: int) -> Trained:
        """All copies at the same initial weights (1, D)."""
        theta = initial.repeat(copies, 1)
        return cls(theta, torch.zeros_like(theta))

    def select(self, rows: Sequence[int]) -> Trained:
        """Only some of the copies."""
        return Trained(self.theta[list(rows)], self.velocity[list(rows)], self.steps)


@dataclass(frozen=True)
class Batches:
    """The minibatches of a base training. x: (N, …), y: (N, C) its data; rows: (steps, B)."""

    x: Tensor
    y: Tensor
    rows: NDArray[np.int64]


def train(
    state: Trained, stack: Stack, losses: LossPopulation, phi: Tensor, batches: Batches,
    output: Output, sgd: SGD,
) -> Trained:  # fmt: skip
    """The state after one step of SGD for each minibatch."""
    theta, velocity = state.theta.clone(), state.velocity.clone()
    x, y, steps = batches.x, batches.y, state.steps + len(batches.rows)
    if losses.form(theta) == "fused" and (compiled := fused(stack, theta, x, y)):
        compiled.train(theta, velocity, losses, phi, Table.of(x, y, batches.rows), output, sgd)
        return Trained(theta, velocity, steps)
    for step, rows in enumerate(torch.from_numpy(batches.rows).to(x.device), start=state.steps):
        stack.reseed(step)
        _step(stack, losses, phi, (theta, velocity), (x[rows], y[rows]), output, sgd)
    return Trained(theta, velocity, steps)


def train_each(
    states: Sequence[Trained], stack: Stack, losses: LossPopulation, phi: Tensor,
    batches: Sequence[Batches], output: Output, sgd: SGD, graphs: Graphs | None,
) -> list[Trained]:  # fmt: skip
    """`train` from each state on minibatches of its own, as many for all.

    graphs: where steps that can be recorded are kept: one step of all trainings, side by side.
    """
    alike = len({(each.x.shape[1:], each.rows.shape) for each in batches}) == 1
    if graphs is not None and alike and batches[0].rows.size and capturable(stack, losses, phi):
        return _replayed(states, stack, tensors_of(losses, phi), batches, output, sgd, graphs)
    return [
        train(state, stack, losses, phi, own, output, sgd)
        for state, own in zip(states, batches, strict=True)
    ]


def _step(
    stack: Stack, losses: LossPopulation | WalkedLosses, phi: Tensor, state: Tensors,
    batch: Tensors, output: Output, sgd: SGD,
) -> None:  # fmt: skip
    """θ and the velocity change in place."""
    (theta, velocity), (inputs, targets) = state, batch
    raw, pullback = stack.pull(theta, inputs)
    slope = losses.gradient(raw, targets, phi, output)
    sgd.update_(theta, pullback(slope), velocity)


def _replayed(
    states: Sequence[Trained], stack: Stack, learned: Tensors, batches: Sequence[Batches],
    output: Output, sgd: SGD, graphs: Graphs,
) -> list[Trained]:  # fmt: skip
    """The states after a recorded step of all trainings on each of their minibatches."""
    count = len(states)

    def step(batch: Tensors, staying: Tensors) -> tuple[Tensor, ...]:
        losses = WalkedLosses.of(staying[2 * count :])

        def one(n: int) -> None:
            own, seen = staying[2 * n : 2 * n + 2], (batch[0][n], batch[1][n])
            _step(stack, losses, losses.phi, own, seen, output, sgd)

        side_by_side(one, range(count))
        return tuple(staying[: 2 * count])

    begun = [tensor for each in states for tensor in (each.theta, each.velocity)]
    captured = None
    for batch in _gathered(batches):
        what = "train", count, output, sgd
        captured = captured or graphs.begun(what, step, batch, (*begun, *learned))
        captured(batch)
    assert captured is not None  # there is at least one minibatch
    ends = [each.clone() for each in captured.results]
    done = states[0].steps + len(batches[0].rows)
    return [Trained(*own, done) for own in zip(ends[::2], ends[1::2], strict=True)]


def _gathered(batches: Sequence[Batches]) -> Iterator[tuple[Tensor, Tensor]]:
    """(T, B, …) inputs and (T, B, C) targets of T trainings, step by step."""
    first = batches[0]
    numbers = len(batches) * first.rows.shape[1] * (first.x[0].numel() + first.y[0].numel())
    size = max(1, _GATHERED_BYTES // (first.x.element_size() * numbers))
    for begin in range(0, len(first.rows), size):
        places = [
            torch.from_numpy(each.rows[begin : begin + size]).to(first.x.device) for each in batches
        ]
        pairs = list(zip(batches, places, strict=True))
        inputs = torch.stack([each.x[rows] for each, rows in pairs], dim=1)
        targets = torch.stack([each.y[rows] for each, rows in pairs], dim=1)
        yield from zip(inputs, targets, strict=True)


def calibration(x: Tensor, batches: NDArray[np.int64]) -> list[Tensor]:
    """The first minibatches of a training on x (N, …): batch norms take their statistics there."""
    return [x[rows] for rows in torch.from_numpy(batches[:_CALIBRATION_BATCHES]).to(x.device)]


def predict(
    stack: Stack, theta: Tensor, x: Tensor, output: Output, seen: Sequence[Tensor] = ()
) -> Tensor:
    """(P, N, C) predictions f in evaluation mode, without a graph.

    seen: minibatches of the training inputs, as of `calibration`. Without them, batch norms
        standardise by x, some rows at a time.
    """
    statistics = stack.statistics(theta, seen)
    size = max(1, min(_PREDICTED_ROWS, _PREDICTED_NUMBERS // x[0].numel()))
    parts = [transform(stack.predict(theta, part, statistics), output) for part in x.split(size)]
    return torch.cat(parts, dim=1)
