"""What a supervised task is: episodes of data, a base network, an output transform, a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evoloss.errors import ShapeError, UserError
from evoloss.lang.types import Output
from evoloss.wording import counted

NetworkFactory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Data:
    """One split. x: (N, ...) inputs; y: (N, C) float targets as a loss sees them (one-hot)."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            inputs, targets = counted(len(self.x), "input"), counted(len(self.y), "target")
            raise ShapeError(f"{inputs} but {targets}: give one for each")

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Data:
        """The same on a device."""
        return Data(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Episode:
    """What one base training sees: it trains on `train` and is scored on `held_out`."""

    train: Data
    held_out: Data

    def to(self, device: torch.device) -> Episode:
        """The same on a device."""
        return Episode(self.train.to(device), self.held_out.to(device))


class Episodes(Protocol):
    """Where episodes come from: one data set, or a distribution of few-shot problems.

    `search` episodes hold out validation data, `test` episodes hold out test data; nothing of a
    test episode's held-out data may occur in a search episode. Indices beyond the distinct ones
    start over.
    """

    @property
    def distinct(self) -> int: ...

    def search(self, index: int) -> Episode: ...

    def test(self, index: int) -> Episode: ...


@dataclass(frozen=True)
class Metric:
    """A score of predictions that the search minimises or maximises.

    function: batched, (..., N, C) predictions and (N, C) targets to (...), on any device; not
        batched, one (N, C) prediction and (N, C) targets, both on the CPU, to a number.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor | float]
    higher_is_better: bool = False
    batched: bool = False

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(P,) float64 errors on the CPU, lower is better, of (P, N, C) predictions.

        NaN stays NaN.
        """
        if self.batched:
            found = torch.as_tensor(self.function(prediction, target))
            value = found.to("cpu", torch.float64)
        else:
            one_by_one, target = prediction.cpu(), target.cpu()
            value = torch.tensor(
                [float(self.function(each, target)) for each in one_by_one], dtype=torch.float64
            )
        return -value if self.higher_is_better else value

    def shown(self, error: float) -> float:
        """The metric's own value for an error."""
        return -error if self.higher_is_better else error


@dataclass(frozen=True)
class Training:
    """How a base network is trained: stochastic gradient descent, as in the EvoMAL paper.

    steps: of a short fitness training; batch: minibatch size (the whole split if it is smaller).
    rejection_steps: of the rejection protocol.
    """

    lr: float = 0.01
    batch: int = 128
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    steps: int = 500
    rejection_steps: int = 1000


@dataclass(frozen=True)
class Task:
    """Everything a search needs to know about a supervised problem.

    output: the transform from the network's raw output (B, C) to the prediction f.
    usual_loss: the expression of the loss that is commonly used, the one to beat.
    episodes_per_fitness: how many episodes one fitness averages over (1 for one data set).
    source: how the task was named, so that a stored run can load it again; None for a task that
        lives only in memory (such a run can be shown but is resumed from Python only).
    notes: what was done to the data on loading (encoded columns, dropped rows), to be told.
    """

    name: str
    episodes: Episodes
    network: NetworkFactory
    network_name: str
    output: Output
    usual_loss: str
    metric: Metric
    training: Training = Training()
    episodes_per_fitness: int = 1
    source: dict[str, object] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """The three disjoint parts of one data set, as episodes."""

    train: Data
    validation: Data
    held_out_test: Data
    distinct: int = 1

    def search(self, index: int) -> Episode:
        """Train on the training split, score on the validation split."""
        return Episode(self.train, self.validation)

    def test(self, index: int) -> Episode:
        """Train on the training split, score on the test split."""
        return Episode(self.train, self.held_out_test)

    def resplit(self, rng: np.random.Generator) -> Episode:
        """Training and validation rows dealt out anew, in the same proportion."""
        parts = (self.train, self.validation)
        x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        train, validation = order[: len(self.train)], order[len(self.train) :]
        return Episode(Data(x[train], y[train]), Data(x[validation], y[validation]))

    def to(self, device: torch.device) -> Splits:
        """The same on a device."""
        parts = (self.train, self.validation, self.held_out_test)
        train, validation, test = (part.to(device) for part in parts)
        return replace(self, train=train, validation=validation, held_out_test=test)


@dataclass(frozen=True)
class Placed:
    """Episodes that are moved to a device as they are asked for."""

    episodes: Episodes
    device: torch.device

    @property
    def distinct(self) -> int:
        """How many there are."""
        return self.episodes.distinct

    def search(self, index: int) -> Episode:
        """That of the index, on the device."""
        return self.episodes.search(index).to(self.device)

    def test(self, index: int) -> Episode:
        """That of the index, on the device."""
        return self.episodes.test(index).to(self.device)


def placed(episodes: Episodes, device: torch.device) -> Episodes:
    """Episodes with their data on a device; one data set is moved at once."""
    if isinstance(episodes, Splits):
        return episodes.to(device)
    return episodes if device.type == "cpu" else Placed(episodes, device)


def check_network(task: Task, device: torch.device | None = None) -> None:
    """Raises ShapeError or UserError if the base network does not fit the task's data.

    device: where it is to be trained; None for where the data are.
    """
    train = task.episodes.search(0).train
    probe, outputs = train.x[: min(2, task.training.batch)], train.y.shape[1]
    try:
        network = task.network()
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"network '{task.network_name}' cannot be made: {reason}") from error
    if device is not None:
        network, probe = network.to(device), probe.to(device)
    try:
        with torch.no_grad():
            found = network(probe)
    except Exception as error:
        raise ShapeError(
            f"network '{task.network_name}' fails on an input of shape {tuple(probe.shape)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, Tensor) or tuple(found.shape) != (len(probe), outputs):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ShapeError(
            f"network '{task.network_name}' returns {shape} for {len(probe)} inputs; "
            f"task '{task.name}' wants {(len(probe), outputs)}: change its last layer"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"network '{task.network_name}' has no trainable parameters")
