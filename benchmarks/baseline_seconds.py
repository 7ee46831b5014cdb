"""Prints the baseline's seconds per stage and candidate, with one and with two threads.

`python benchmarks/baseline_seconds.py`: mean of three runs of each loss below; they have 14 nodes
on average, like the trees of a search.
"""

import statistics
from collections.abc import Callable
from itertools import pairwise

import torch
from baseline import Settings, Split, evaluate_candidate
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn

LOSSES = (
    "square(y - f) + aq(abs(y - f), sqrt(f)) + tanh(y)*tanh(f)",
    "abs(log(f + y) - y) + max(square(f - y), aq(f, y))",
    "sqrt(square(f - y)) - min(sign(y)*f, square(y + 1))",
    "square(tanh(f - y))",
)


def mlp(*sizes: int) -> Callable[[], nn.Module]:
    """A factory of fully connected networks with ReLU between the layers."""

    def make() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for inputs, outputs in pairwise(sizes[1:]):
            layers += [nn.ReLU(), nn.Linear(inputs, outputs)]
        return nn.Sequential(*layers)

    return make


def split(x: Tensor, y: Tensor) -> tuple[Split, Split]:
    """60 % for training and the next 20 % for validation, of rows in a fixed random order."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = int(0.6 * len(x)), int(0.8 * len(x))
    return (x[order[:first]], y[order[:first]]), (x[order[first:second]], y[order[first:second]])


def diabetes(*hidden: int) -> Settings:
    x, y = (torch.tensor(each, dtype=torch.float32) for each in load_diabetes(return_X_y=True))
    train, validation = split((x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None])
    return Settings(train, validation, mlp(10, *hidden, 1), "identity", squared_error)


def digits(*hidden: int) -> Settings:
    x, y = (torch.tensor(each) for each in load_digits(return_X_y=True))
    train, validation = split((x / 16.0).float(), nn.functional.one_hot(y.long(), 10).float())
    return Settings(train, validation, mlp(64, *hidden, 10), "softmax", error_rate)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def error_rate(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.argmax(-1) != target.argmax(-1)).float().mean()


def main() -> None:
    problems = {
        "diabetes, linear": diabetes(),
        "diabetes, 2 x 64": diabetes(64, 64),
        "digits, 2 x 64": digits(64, 64),
    }
    stages = ("local search", "rejection", "fitness")
    print(f"{'seconds per candidate':24}{'threads':>8}", *(f"{each:>13}" for each in stages))
    for name, settings in problems.items():
        evaluate_candidate(LOSSES[0], settings)  # torch's first calls are slow
        runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for text in LOSSES * 3:
            for threads, seconds in runs.items():  # in turns, so that both see the same load
                torch.set_num_threads(threads)
                seconds.append(evaluate_candidate(text, settings)["seconds"])
        for threads, seconds in runs.items():
            # A rejected candidate has no fitness stage.
            means = [statistics.fmean(r[each] for r in seconds if each in r) for each in stages]
            print(f"{name:24}{threads:8}", *(f"{each:13.3f}" for each in means))


if __name__ == "__main__":
    main()
