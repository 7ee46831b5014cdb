"""Supervised tasks that workers load by `loadable:NAME`, one of them with a deadly metric."""

import os

import torch
from torch import nn

import tiny
from evoloss.tasks.task import Data, Metric


def convolution():
    return tiny.regression(tiny.Convolution)


def wide():
    """A perceptron of one layer, with products so large that libraries compute a lone one in
    another way than several."""

    def part(seed, rows):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, 10, generator=generator)
        return Data(x, x[:, :1] - 0.5 * x[:, 1:2] ** 2)

    episodes = tiny.NoTest(part(0, 40), part(1, 300), part(2, 8))
    return tiny.regression(lambda: nn.Linear(10, 1), episodes=episodes, name="wide")


def _deadly(prediction, target):
    """Ends the interpreter for networks whose predictions are nearly constant, after a start."""
    for each in prediction:
        if os.environ.get("EVOLOSS_THREADS") and len(each) == 24 and float(each.std()) < 0.15:
            os._exit(7)
    return tiny.mean_squared_error(prediction, target)


def deadly():
    return tiny.regression(metric=Metric("MSE", _deadly, batched=True))
