"""On a GPU, where there is one: recorded trainings side by side equal those that are not."""

import numpy as np
import pytest
import torch
from torch import nn

from evoloss.engine.captured import Graphs
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import parameters
from evoloss.engine.stacking import make_stack
from evoloss.engine.training import Batches, Trained, minibatches, train, train_each
from evoloss.lang.parse import parse

pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available():
    pytest.skip("torch finds no GPU", allow_module_level=True)

GPU = torch.device("cuda")
LOSSES = [parse(each) for each in ("square(y - f)", "1.5 * abs(2.0 * y - f) * tanh(f)")]
NETWORKS = {
    "dense": (nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3)), (6,)),
    "vmap": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), (1, 6, 6)
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", NETWORKS)
def test_recorded_trainings_side_by_side_equal_those_that_are_not(way):
    network, shape = NETWORKS[way]
    stack = make_stack(network.to(GPU), dict.fromkeys(("train", "pull_shared", "push"), way))
    draws = np.random.default_rng(0)
    x = torch.from_numpy(draws.standard_normal((60, *shape), np.float32)).to(GPU)
    y = torch.from_numpy(draws.standard_normal((60, 3), np.float32)).softmax(-1).to(GPU)
    batches = [Batches(x + n, y, minibatches(60, 20, 30, draws)) for n in range(5)]
    theta = parameters(network)[None]
    starts = [Trained.start(theta * (1 + 0.1 * n), len(LOSSES)) for n in range(5)]
    losses = LossPopulation(LOSSES, "none")
    given = stack, losses, losses.initial_phi(GPU)
    rest = "softmax", SGD(0.1, momentum=0.9)
    graphs = Graphs()
    for _ in range(2):  # recorded, then taken from those that are kept
        found = train_each(starts, *given, batches, *rest, graphs)
        for start, own, each in zip(starts, batches, found, strict=True):
            plain = train(start, *given, own, *rest)
            torch.testing.assert_close(each.theta, plain.theta, rtol=1e-4, atol=1e-5)
            assert not torch.equal(each.theta, start.theta)
    assert len(graphs._kept) == 1
