"""Puts a task together from its parts: what goes with regression and with classification."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from evoloss.lang.types import Output
from evoloss.tasks.metrics import metric_named
from evoloss.tasks.networks import network_factory, users_factory
from evoloss.tasks.task import (
    Episodes,
    Metric,
    NetworkFactory,
    Splits,
    Task,
    Training,
    check_network,
)

Kind = Literal["regression", "classification"]

SQUARED_ERROR = "square(y - f)"
CROSS_ENTROPY = "-y * log(f)"
BINARY_CROSS_ENTROPY = "-(y * log(f) + (1 - y) * log(1 - f))"


def compose(
    name: str,
    episodes: Episodes,
    kind: Kind,
    network: str | NetworkFactory,
    *,
    metric: Metric | None = None,
    training: Training | None = None,
    episodes_per_fitness: int = 1,
    notes: tuple[str, ...] = (),
) -> Task:
    """A task with the output transform, the usual loss and the metric of its kind, checked."""
    outputs = episodes.search(0).train.y.shape[1]
    output: Output = "identity"
    usual_loss = SQUARED_ERROR
    if kind == "classification":
        output = "sigmoid" if outputs == 1 else "softmax"
        usual_loss = BINARY_CROSS_ENTROPY if outputs == 1 else CROSS_ENTROPY
    usual_metric = "mse" if kind == "regression" else "error rate"
    factory, network_name = _network(network, episodes)
    task = Task(
        name=name,
        episodes=episodes,
        network=factory,
        network_name=network_name,
        output=output,
        usual_loss=usual_loss,
        metric=metric or metric_named(usual_metric),
        training=training or Training(),
        episodes_per_fitness=episodes_per_fitness,
        notes=notes,
    )
    check_network(task)
    return task


def with_network(task: Task, network: str | NetworkFactory) -> Task:
    """The same task with another base network, checked."""
    factory, network_name = _network(network, task.episodes)
    changed = replace(task, network=factory, network_name=network_name)
    check_network(changed)
    return changed


def _network(network: str | NetworkFactory, episodes: Episodes) -> tuple[NetworkFactory, str]:
    if not isinstance(network, str):
        name = getattr(network, "__name__", type(network).__name__)
        return users_factory(name, network), name
    train = episodes.search(0).train
    vocabulary = None
    if train.x.dtype == torch.int64:
        texts = [train.x]
        if isinstance(episodes, Splits):
            texts += [episodes.validation.x, episodes.held_out_test.x]
        vocabulary = 1 + max(int(text.max()) for text in texts)
    shape = tuple(train.x.shape[1:])
    return network_factory(network, shape, train.y.shape[1], vocabulary), network
