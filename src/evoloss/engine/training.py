"""Base training: many networks side by side, each under its own loss, on the same minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evoloss.engine.captured import Graphs, Tensors, WalkedLosses, capturable, tensors_of
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


def train(
    state: Trained,
    stack: Stack,
    losses: LossPopulation,
    phi: Tensor,
    x: Tensor,
    y: Tensor,
    batches: NDArray[np.int64],
    output: Output,
    sgd: SGD,
    graphs: Graphs | None = None,
) -> Trained:
    """The state after one step of SGD for each row of batches.

    x: (N, …), y: (N, C) the training split; batches: (steps, B) row numbers into it. graphs: where
    steps that can be recorded are kept.
    """
    theta, velocity = state.theta.clone(), state.velocity.clone()
    steps = state.steps + len(batches)
    if losses.form(theta) == "fused" and (compiled := fused(stack, theta, x, y)):
        compiled.train(theta, velocity, losses, phi, Table.of(x, y, batches), output, sgd)
        return Trained(theta, velocity, steps)
    placed = torch.from_numpy(batches).to(x.device)
    if graphs is not None and len(batches) and capturable(stack, losses, theta):
        data = ((x[rows], y[rows]) for rows in placed)
        learned = tensors_of(losses, phi)
        return Trained(
            *_replayed(graphs, stack, learned, (theta, velocity), data, output, sgd), steps
        )
    for step, rows in enumerate(placed, start=state.steps):
        inputs, targets = x[rows], y[rows]
        stack.reseed(step)
        raw, pullback = stack.pull(theta, inputs)
        slope = losses.gradient(raw, targets, phi, output)
        sgd.update_(theta, pullback(slope), velocity)
    return Trained(theta, velocity, steps)


def _replayed(
    graphs: Graphs, stack: Stack, learned: Tensors, state: Tensors, data: Iterable[Tensors],
    output: Output, sgd: SGD,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """θ and the velocity after a recorded step on each minibatch."""

    def step(batch: Tensors, staying: Tensors) -> tuple[Tensor, ...]:
        theta, velocity, *rest = staying
        losses = WalkedLosses.of(rest)
        raw, pullback = stack.pull(theta, batch[0])
        slope = losses.gradient(raw, batch[1], losses.phi, output)
        sgd.update_(theta, pullback(slope), velocity)
        return theta, velocity

    captured = None
    for batch in data:
        captured = captured or graphs.begun(("train", output, sgd), step, batch, (*state, *learned))
        captured(batch)
    assert captured is not None  # there is at least one minibatch
    theta, velocity = captured.results
    return theta.clone(), velocity.clone()


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
