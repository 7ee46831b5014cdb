"""Supervised tasks that workers load by `loadable:NAME`, one of them with a deadly metric."""

import os

from torch import nn

import tiny
from evoloss.tasks.task import Metric


class Convolution(nn.Module):
    """No plain multilayer perceptron: it is stacked by vmap or a loop."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 3, 2)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.drop(self.convolution(x[:, None]).flatten(1)))


def convolution():
    return tiny.regression(Convolution)


def _deadly(prediction, target):
    """Ends the interpreter for networks whose predictions are nearly constant, after a start."""
    for each in prediction:
        if os.environ.get("EVOLOSS_THREADS") and len(each) == 24 and float(each.std()) < 0.15:
            os._exit(7)
    return tiny.mean_squared_error(prediction, target)


def deadly():
    return tiny.regression(metric=Metric("MSE", _deadly, batched=True))
