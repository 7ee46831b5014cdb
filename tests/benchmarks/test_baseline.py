"""The baseline is right: a wrong one would make every ratio against it worthless."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "baseline.py"
_spec = importlib.util.spec_from_file_location("evoloss_baseline", _PATH)
baseline = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = baseline  # dataclasses look their module up by name
_spec.loader.exec_module(baseline)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def regression(rows=40, inputs=3, dtype=torch.float32):
    x = torch.randn(rows, inputs, generator=seeded(1), dtype=dtype)
    return x, x.sum(1, keepdim=True)


def linear():
    return nn.Linear(3, 1)


def squared(prediction, target):
    return (prediction - target).square().mean()


def test_gradient_of_a_weighted_square_is_the_one_on_paper():
    loss = baseline.TreeLoss("square(y - f)")  # (w0 * (w1 y - w2 f))², edges in pre-order
    with torch.no_grad():
        loss.phi.copy_(torch.tensor([2.0, 3.0, 0.5]))
    f = torch.tensor([[1.0], [4.0]], requires_grad=True)
    y = torch.tensor([[2.0], [-1.0]])
    residual = 2.0 * (3.0 * y - 0.5 * f.detach())
    value = loss(f, y)
    assert value.item() == pytest.approx(residual.square().mean().item())
    (gradient,) = torch.autograd.grad(value, f)
    torch.testing.assert_close(gradient, -2.0 * residual * 2.0 * 0.5 / 2)
    torch.testing.assert_close(loss.fixed()(f, y), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y + f - 2*y/f", 2.0 - 3.0 + 4.0 / 3.0),
        ("aq(y, f)", 2.0 / math.sqrt(10.0)),
        ("sign(f) + square(f) + abs(f)", -1.0 + 9.0 + 3.0),
        ("log(f) + sqrt(f)", math.log(3.0) + math.sqrt(3.0)),
        ("log(0*y + 0*f)", math.log(1e-7)),
        ("tanh(f) + min(y, f) + max(y, -1.5)", math.tanh(-3.0) - 3.0 + 2.0),
    ],
)
def test_value_of_every_function(text, value):
    f, y = torch.tensor([[-3.0]]), torch.tensor([[2.0]])
    assert baseline.TreeLoss(text)(f, y).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("text", ["exp(f)", "f ** 2", "y + g", "f if y else y", "'f'"])
def test_foreign_python_is_refused(text):
    with pytest.raises(ValueError, match="not an expression"):
        baseline.TreeLoss(text)


@pytest.mark.parametrize(("text", "verdict"), [("square(y - f)", False), ("-square(y - f)", True)])
def test_rejection_keeps_the_squared_error_and_drops_its_negative(text, verdict):
    loss = baseline.TreeLoss(text)
    split = regression(150)
    found = baseline.rejects(
        loss, linear, split, baseline.OUTPUTS["identity"], squared, steps=50, generator=seeded()
    )
    assert found is verdict


def test_hypergradient_agrees_with_finite_differences(monkeypatch):
    """phi's gradient, with an optimiser that stays put, against the task loss after one step."""
    monkeypatch.setattr(torch.optim, "Adam", lambda *_, **__: _Still())
    torch.set_default_dtype(torch.float64)
    try:
        x, y = regression(dtype=torch.float64)
        loss = baseline.TreeLoss("square(y - f) + aq(abs(y - f), f)*tanh(log(f))")
        arguments = (linear, (x, y), (x + 0.1, y), baseline.OUTPUTS["identity"])
        usual = baseline.USUAL_LOSSES["identity"]
        baseline.local_search(loss, *arguments, usual, steps=1, lr=0.05, generator=seeded(7))
        step = 1e-5
        for i in range(len(loss.phi)):
            up, down = (_after_one_step(loss, x, y, i, sign * step) for sign in (1, -1))
            assert loss.phi.grad[i].item() == pytest.approx((up - down) / (2 * step), rel=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)


class _Still:
    """An optimiser that leaves phi where it is."""

    def step(self):
        pass


def _after_one_step(loss, x, y, index, shift, lr=0.05):
    """The task loss on (x + 0.1, y) after one step, phi[index] moved; the network written out."""
    network = baseline.BaseNetwork(linear, seeded(7))
    network.fresh()
    weight, bias = (each.detach().clone().requires_grad_() for each in network.parameters)
    phi = loss.phi.detach().clone()
    phi[index] += shift
    inner = torch.func.functional_call(loss, {"phi": phi}, (x @ weight.T + bias, y))
    d_weight, d_bias = torch.autograd.grad(inner, (weight, bias))
    after = (x + 0.1) @ (weight - lr * d_weight).T + (bias - lr * d_bias)
    return (after - y).square().mean().item()


def test_fresh_weights_are_distributed_as_torch_draws_them():
    network = baseline.BaseNetwork(
        lambda: nn.Sequential(nn.Conv2d(4, 100, 3), nn.Flatten(), nn.Linear(400, 50)), seeded()
    )
    network.fresh()
    first = [each.detach().clone() for each in network.parameters]
    for ours, fan_in in zip(first, (36, 36, 400, 400), strict=True):
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < ours.abs().max().item() <= bound
    network.fresh()
    assert all(not torch.equal(a, b) for a, b in zip(first, network.parameters, strict=True))


def test_other_layers_reset_themselves():
    network = baseline.BaseNetwork(
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)), seeded()
    )
    network.fresh()
    assert torch.equal(network.module[1].weight, torch.ones(8))


def test_minibatches_pass_over_every_row_before_any_comes_twice():
    x = torch.arange(12.0)[:, None]
    batches = list(baseline.minibatches((x, x), 4, 6, seeded()))
    for once in (batches[:3], batches[3:]):
        assert sorted(torch.cat([rows for rows, _ in once]).flatten().tolist()) == list(range(12))
    assert all(len(rows) == 12 for rows, _ in baseline.minibatches((x, x), 12, 2, seeded()))


def test_fitness_of_the_squared_error_fits_a_linear_problem():
    data = regression()
    error = baseline.fitness(
        baseline.TreeLoss("square(y - f)"), linear, data, data, baseline.OUTPUTS["identity"],
        squared, weight_decay=0.0, generator=seeded(),
    )  # fmt: skip
    assert error < 1e-6


@pytest.mark.parametrize(("text", "stages"), [("square(y - f)", 3), ("-square(y - f)", 2)])
def test_a_rejected_candidate_is_not_trained(monkeypatch, text, stages):
    monkeypatch.setattr(baseline, "local_search", lambda *_, **__: None)
    data = regression()
    task = baseline.Settings(
        data, data, linear, "identity", squared, fitness_steps=5, rejection_steps=20
    )
    found = baseline.evaluate_candidate(text, task)
    assert len(found["seconds"]) == stages
    assert found["rejected"] == (stages == 2) == (found["error"] is None)


ELSEWHERE = """
import baseline
import second_device as two
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(two.ELSEWHERE)

def squared(prediction, target):
    return (prediction - target).square().mean()

with two.two_devices():
    x, y = torch.randn(40, 3).to(two.ELSEWHERE), torch.randn(40, 1).to(two.ELSEWHERE)
    settings = baseline.Settings(
        (x[:20], y[:20]), (x[20:], y[20:]), network, "identity", squared, batch=8, local_steps=4,
        fitness_steps=6, rejection_steps=20,
    )
    for text in ("square(y - f)", "abs(2 * y - f) + min(square(y - f), 0.5)"):
        print(baseline.evaluate_candidate(text, settings)["error"])
two.leave()
"""


@pytest.mark.slow
def test_on_another_device_nothing_is_left_on_the_cpu():
    """Its numbers are not those of the CPU: weights are drawn into views, which that lacks."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{_PATH.parent}:{tests}"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ELSEWHERE], env=environment,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(math.isfinite(float(each)) for each in done.stdout.split())
    assert len(done.stdout.split()) == 2
