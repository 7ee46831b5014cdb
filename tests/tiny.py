"""Supervised problems and searches that take a fraction of a second, for several test modules."""

import signal
from dataclasses import replace

import torch
from torch import nn

from evoloss.tasks.task import Data, Episode, Metric, Splits, Task, Training

SEARCH = {
    "population": 6, "generations": 3, "local_steps": 3, "fitness_steps": 10,
    "rejection_steps": 30, "finalists": 3, "meta_lr": 0.01, "fitness_seeds": 1,
}  # fmt: skip


def mlp():
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


class Convolution(nn.Module):
    """No plain multilayer perceptron: it is stacked by vmap or a loop."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 3, 2)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.drop(self.convolution(x[:, None]).flatten(1)))


class Steep(nn.Module):
    """Its training goes a million times too fast: a quartic loss explodes, a bounded one cannot."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        return 1000.0 * self.layer(x)


def mean_squared_error(prediction, target):
    return (prediction - target).square().mean((-2, -1))


def part(seed: int, rows: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=generator)
    noise = 0.05 * torch.randn(rows, 1, generator=generator)
    return Data(x, x[:, :1] - 0.5 * x[:, 1:] ** 2 + noise)


class NoTest(Splits):
    """A data set whose test split must not be looked at."""

    def test(self, index):
        raise AssertionError("a search looked at the test split")


def regression(network=mlp, **changes) -> Task:
    """A curved plane with a little noise."""
    task = Task(
        name="tiny",
        episodes=NoTest(part(0, 40), part(1, 24), part(2, 8)),
        network=network,
        network_name=network.__name__,
        output="identity",
        usual_loss="square(y - f)",
        metric=Metric("MSE", mean_squared_error, batched=True),
        training=Training(lr=0.05, batch=16, steps=20),
    )
    return replace(task, **changes)


class Sums:
    """Few-shot problems: a weighted sum of two inputs, other weights in every episode."""

    distinct = 7

    def search(self, index):
        generator = torch.Generator().manual_seed(index % self.distinct)
        weights = torch.randn(2, 1, generator=generator)
        x = torch.randn(20, 2, generator=generator)
        return Episode(Data(x[:10], x[:10] @ weights), Data(x[10:], x[10:] @ weights))

    def test(self, index):
        raise AssertionError("a search looked at the test split")


def few_shot() -> Task:
    return regression(episodes=Sums(), episodes_per_fitness=2, name="sums")


def classification() -> Task:
    """Two classes, which a softmax tells apart; scored by accuracy, higher being better."""

    def two(data):
        above = (data.y[:, 0] > 0).long()
        return Data(data.x, nn.functional.one_hot(above, 2).float())

    def network():
        return nn.Linear(2, 2)

    return regression(
        network,
        name="classes",
        episodes=NoTest(*(two(part(seed, rows)) for seed, rows in ((0, 40), (1, 24), (2, 8)))),
        output="softmax",
        usual_loss="-y * log(f)",
        metric=Metric("accuracy", accuracy, higher_is_better=True),
    )


def accuracy(prediction, target):
    return (prediction.argmax(-1) == target.argmax(-1)).float().mean()


TASKS = {"regression": regression, "few-shot": few_shot, "classification": classification}


def work(connection, job, kind: str, directory, stop: int | None, **settings) -> None:
    """A process's work: search or resume, reporting each stage; waits for ever at report `stop`."""
    from evoloss.discovery.search import resume, search

    reports = 0

    def observer(progress):
        nonlocal reports
        connection.send((progress.generation, progress.stage))
        reports += 1
        if reports == stop:
            signal.pause()

    if job == "search":
        search(TASKS[kind](), out=directory, observer=observer, **settings)
    else:
        resume(directory, task=TASKS[kind](), observer=observer)
    connection.send("done")
