"""The metrics of supervised tasks, batched over leading dimensions: one call scores a population.

A prediction with NaN scores NaN, whatever the target: it must never pass for a right answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evoloss.errors import UserError
from evoloss.tasks.plugin import did_you_mean
from evoloss.tasks.task import Metric


def error_rate(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of rows whose class is wrong. (..., N, C) and (N, C), C ≥ 2 one-hot or C = 1, to (...).

    With one output the class is whether it lies above one half.
    """
    if target.shape[-1] == 1:
        wrong = ((prediction > 0.5) != (target > 0.5)).squeeze(-1)
    else:
        wrong = prediction.argmax(-1) != target.argmax(-1)
    undefined = prediction.isnan().any(-1)
    return wrong.double().masked_fill(undefined, torch.nan).mean(-1)


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of rows whose class is right. (..., N, C) and (N, C) to (...)."""
    return 1.0 - error_rate(prediction, target)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over rows and outputs. (..., N, C) and (N, C) to (...)."""
    return (prediction.double() - target.double()).square().mean((-2, -1))


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over rows and outputs. (..., N, C) and (N, C) to (...)."""
    return (prediction.double() - target.double()).abs().mean((-2, -1))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("error rate", error_rate, batched=True),
        Metric("accuracy", accuracy, higher_is_better=True, batched=True),
        Metric("mse", mse, batched=True),
        Metric("mae", mae, batched=True),
    )
}
"""The metrics by name."""


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises UserError if there is none."""
    if name not in METRICS:
        hint = did_you_mean(name, METRICS)
        raise UserError(f"unknown metric '{name}'{hint}: the metrics are {', '.join(METRICS)}")
    return METRICS[name]
