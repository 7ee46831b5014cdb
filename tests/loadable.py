"""Supervised tasks that workers load by `loadable:NAME`, one of them with a deadly metric."""

import os

import tiny
from evoloss.tasks.task import Metric


def convolution():
    return tiny.regression(tiny.Convolution)


def _deadly(prediction, target):
    """Ends the interpreter for networks whose predictions are nearly constant, after a start."""
    for each in prediction:
        if os.environ.get("EVOLOSS_THREADS") and len(each) == 24 and float(each.std()) < 0.15:
            os._exit(7)
    return tiny.mean_squared_error(prediction, target)


def deadly():
    return tiny.regression(metric=Metric("MSE", _deadly, batched=True))
