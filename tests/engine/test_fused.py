"""The compiled trainings against the same steps in tensor operations."""

import numpy as np
import pytest
import torch
from torch import nn

from evoloss.discovery import tuning
from evoloss.discovery.settings import Settings
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Workbench
from evoloss.engine import fused as fused_module
from evoloss.engine import training
from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.fused import fused
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.training import Batches, Trained, fresh_weights, minibatches, train
from evoloss.lang.parse import parse
from tiny import classification, few_shot, regression

NETWORKS = {
    "linear": lambda: nn.Linear(3, 2),
    "relu": lambda: nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2)),
    "tanh, three layers": lambda: nn.Sequential(
        nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 2)
    ),
    "sigmoid without biases": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(3, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 2, bias=False)
    ),
    "ends in an activation": lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
}
LOSSES = [parse(t) for t in ("square(y - f)", "tanh(abs(y - f))", "aq(y - f, y)*f", "-y*log(f)")]
SGDS = {
    "plain": SGD(0.05),
    "momentum": SGD(0.05, 0.9),
    "nesterov and decay": SGD(0.05, 0.9, nesterov=True, weight_decay=0.01),
}


def without_compiled(monkeypatch):
    for module in (training, tuning):
        monkeypatch.setattr(module, "fused", lambda *_: None)


def stack_of(name):
    module = NETWORKS[name]()
    return DenseStack(module, dense_layers(module))


@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("sgd", SGDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_is_that_of_tensor_operations(network, sgd, output, monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(50, 3), torch.randint(0, 2, (50, 2)).float()
    batches = minibatches(50, 16, 12, np.random.default_rng(0))
    # The logarithm of what may be near 0 doubles every rounding error each step.
    smooth = LOSSES[:3] if output == "identity" else LOSSES
    stack, losses = stack_of(network), LossPopulation(smooth, "none")
    start = Trained.start(fresh_weights(NETWORKS[network], 1), len(smooth))
    arguments = (stack, losses, losses.initial_phi(), Batches(x, y, batches), output, SGDS[sgd])
    found = train(start, *arguments)
    without_compiled(monkeypatch)
    wanted = train(start, *arguments)
    torch.testing.assert_close(found.theta, wanted.theta, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(found.velocity, wanted.velocity, rtol=2e-3, atol=2e-4)
    assert found.steps == wanted.steps == 12
    assert not torch.equal(found.theta, start.theta)


@pytest.mark.parametrize("task", [regression, classification, few_shot])
def test_tuning_is_that_of_tensor_operations(task, monkeypatch):
    bench = Workbench(task(), Settings(local_steps=30, meta_lr=0.01, stacking="dense"))
    first = bench.tuning[0].train
    assert fused(bench.stack, first.x, first.y) is not None
    found = tune(bench, LOSSES[:3], lambda share: None)
    without_compiled(monkeypatch)
    wanted = tune(bench, LOSSES[:3], lambda share: None)
    for a, b in zip(found, wanted, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
        assert any(abs(weight - 1.0) > 1e-3 for weight in a)


def test_a_copy_does_not_depend_on_the_others_or_on_the_threads(monkeypatch):
    bench = Workbench(regression(), Settings(local_steps=10, stacking="dense"))
    together = tune(bench, LOSSES, lambda share: None)
    alone = [tune(bench, [loss], lambda share: None)[0] for loss in LOSSES]
    assert together == alone
    monkeypatch.setattr(fused_module, "cores", lambda: 3)
    assert tune(bench, LOSSES, lambda share: None) == together


def test_a_copy_that_breaks_down_leaves_the_others_alone():
    torch.manual_seed(0)
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    batches = minibatches(20, 20, 5, np.random.default_rng(0))
    broken = parse("square(y - f)*1e30")

    def trained(*losses):
        population = LossPopulation(losses, "none")
        start = Trained.start(fresh_weights(NETWORKS["relu"], 1), len(losses))
        phi = population.initial_phi()
        own = Batches(x, y, batches)
        return train(start, stack_of("relu"), population, phi, own, "identity", SGD(0.1))

    both = trained(broken, LOSSES[0]).theta
    assert not torch.isfinite(both[0]).all()
    assert torch.equal(both[1], trained(LOSSES[0]).theta[0])


@pytest.mark.parametrize("change", ["precision", "stack"])
def test_what_it_cannot_do_is_left_to_tensor_operations(change):
    stack = stack_of("relu")
    if change == "precision":
        assert fused(stack, torch.zeros(2, 3).double()) is None
    else:
        assert fused(object(), torch.zeros(2, 3)) is None
