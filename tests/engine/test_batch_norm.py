"""Batch norm: stacks against torch training one network, unrolls by hand, evaluation by torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import evoloss
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, VmapStack, parameters
from evoloss.engine.stacking import make_stack
from evoloss.engine.training import Batches, Trained, calibration, fresh_weights, predict, train
from evoloss.lang.parse import parse
from evoloss.local_search.unrolled import Inner, hypergradient
from evoloss.tasks.networks import network_factory
from loss_oracle import batch_loss, weight_count

LOSSES = [parse("square(y - f)"), parse("-y * log(f) + 0.1 * tanh(f * y)")]
STACKS = {
    "vmap": VmapStack,
    "loop": LoopStack,
    "mixed": lambda m: make_stack(m, {"train": "loop", "pull_shared": "vmap", "push": "vmap:6"}),
}


def draws(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(seed, rows, side=9):
    return 2 * draws(seed, rows, 2, side, side) - 1


def one_hot(rows, classes=3):
    return nn.functional.one_hot(torch.arange(rows) % classes, classes).double()


def seeded(factory, seed=5):
    torch.manual_seed(seed)
    return factory().double()


@pytest.mark.parametrize("spec", ["resnet8", "wrn-16-1", "resnet18", "all-cnn-c"])
@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_two_copies_train_as_torch_trains_each(spec, way):
    """Plain modules with running statistics and torch.optim; dropout by the seed of the step."""
    factory = network_factory(spec, (2, 9, 9), 3)
    x, y, sgd = images(0, 8), one_hot(8), SGD(0.05, 0.9, True, 0.01)
    batches = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    losses = LossPopulation(LOSSES, "none")
    initial = fresh_weights(lambda: factory().double(), 5)
    found = train(
        Trained.start(initial, 2), STACKS[way](seeded(factory, 6)), losses, losses.initial_phi(),
        Batches(x, y, batches), "softmax", sgd,
    ).theta  # fmt: skip
    for row, loss in zip(found, LOSSES, strict=True):
        module = seeded(factory)
        optimiser = torch.optim.SGD(
            module.parameters(), sgd.lr, sgd.momentum, 0, sgd.weight_decay, sgd.nesterov
        )
        for step, rows in enumerate(batches):
            optimiser.zero_grad()
            torch.manual_seed(step)
            batch_loss(loss, y[rows], module(x[rows]).softmax(1), weights="none").backward()
            optimiser.step()
        moved = nn.utils.parameters_to_vector(module.parameters()).detach() - initial[0]
        assert moved.abs().max() > 1e-3
        torch.testing.assert_close(row - initial[0], moved, rtol=1e-7, atol=1e-10)


def normed():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(),
        nn.Linear(27, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3),
    )  # fmt: skip


def standardised(h, axes, scale, shift):
    mean, variance = h.mean(axes, keepdim=True), h.var(axes, unbiased=False, keepdim=True)
    shape = (1, -1, *[1] * (h.dim() - 2))
    return (h - mean) / (variance + 1e-5).sqrt() * scale.view(shape) + shift.view(shape)


def by_hand(p, x):
    """`normed` in elementary operations. p: its parameters in order."""
    h = standardised(nn.functional.conv2d(x, p[0]), (0, 2, 3), p[1], p[2])
    h = (nn.functional.softplus(h).flatten(1)) @ p[3].T + p[4]
    return standardised(h, (0,), p[5], p[6]).tanh() @ p[7].T + p[8]


@pytest.mark.parametrize("way", STACKS)
@pytest.mark.parametrize("steps", [1, 3])
def test_hypergradients_through_batch_norm_are_those_of_double_backward(way, steps):
    sgd, module = SGD(0.3, 0.9, True, 0.01), seeded(normed)
    for parameter in module.parameters():
        parameter.data += 0.3 * draws(parameter.numel(), *parameter.shape)
    start = [p.detach().clone() for p in module.parameters()]
    batches = [(images(seed, 6, side=5), one_hot(6)) for seed in range(steps)]
    validation = images(9, 5, side=5), one_hot(5)
    losses, usual = LossPopulation(LOSSES), parse("-y * log(f)")
    phi = losses.initial_phi() * (0.7 + 0.6 * draws(8, *losses.initial_phi().shape))
    expected = torch.zeros_like(phi)
    for row, loss in enumerate(LOSSES):
        width = weight_count(loss)
        leaf = phi[row, :width].clone().requires_grad_()
        theta, velocity = [p.requires_grad_() for p in start], [torch.zeros_like(p) for p in start]
        for x, y in batches:
            value = batch_loss(loss, y, by_hand(theta, x).softmax(1), leaf)
            slopes = torch.autograd.grad(value, theta, create_graph=True)
            slopes = [g + 0.01 * p for g, p in zip(slopes, theta, strict=True)]
            velocity = [0.9 * v + g for v, g in zip(velocity, slopes, strict=True)]
            theta = [
                p - 0.3 * (g + 0.9 * v)
                for p, g, v in zip(theta, slopes, velocity, strict=True)
            ]  # fmt: skip
        x, y = validation
        outcome = batch_loss(usual, y, by_hand(theta, x).softmax(1), weights="none")
        (expected[row, :width],) = torch.autograd.grad(outcome, leaf)
    inner = Inner(
        STACKS[way](module), losses, LossPopulation([usual] * 2, "none"), "softmax", sgd
    )  # fmt: skip
    found = hypergradient(inner, parameters(module)[None], batches, validation, phi)
    assert (expected.abs().amax(1) > 1e-6).all()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-11)


def trained_rows(module, copies=2):
    """θ of copies that differ, around the module's own weights."""
    return parameters(module) + 0.3 * draws(1, copies, len(parameters(module)))


@pytest.mark.parametrize("way", STACKS)
def test_evaluation_is_torchs_after_its_statistics_were_renewed(way):
    module = seeded(normed)
    theta, x, seen = trained_rows(module), images(2, 7, side=5), images(3, 20, side=5)
    batches = np.arange(20).reshape(4, 5)
    found = predict(STACKS[way](module), theta, x, "softmax", calibration(seen, batches))
    for row, each in zip(theta, found, strict=True):
        plain = seeded(normed, 7)
        nn.utils.vector_to_parameters(row, plain.parameters())
        update_bn([seen[rows] for rows in batches], plain)
        with torch.no_grad():
            torch.testing.assert_close(each, plain.eval()(x).softmax(1))


@pytest.mark.parametrize("rows", [1, 4, 5, 9])
def test_a_prediction_depends_on_its_own_row_only(rows, monkeypatch):
    """Also where a single row is left for the last pass, which has no statistics of its own."""
    monkeypatch.setattr("evoloss.engine.training._PREDICTED_ROWS", 4)
    module = seeded(normed)
    stack, theta, x = LoopStack(module), trained_rows(module), images(2, 9, side=5)
    seen = calibration(images(3, 20, side=5), np.arange(20).reshape(4, 5))
    whole = predict(stack, theta, x, "softmax", seen)
    torch.testing.assert_close(predict(stack, theta, x[:rows], "softmax", seen), whole[:, :rows])
    turned = predict(stack, theta, x.flip(0), "softmax", seen).flip(1)
    torch.testing.assert_close(turned, whole)


def test_evaluating_leaves_nothing_behind_in_training():
    module = seeded(normed)
    stack, theta, x = LoopStack(module), trained_rows(module), images(2, 6, side=5)
    before, alone = stack.forward(theta, x), stack.predict(theta, x)
    predict(stack, theta, images(4, 6, side=5), "softmax", [images(3, 5, side=5)])
    assert torch.equal(stack.forward(theta, x), before)
    assert torch.equal(stack.predict(theta, x), alone)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_a_batch_norm_without_running_statistics_stays_one():
    """Its user wants the batch's in evaluation too."""
    module = seeded(lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)))
    stack, x = VmapStack(module), draws(0, 6, 3)
    assert stack.statistics(parameters(module)[None], [x]) is None
    found = predict(stack, parameters(module)[None], x + 7.0, "identity", [x])[0]
    torch.testing.assert_close(found, standardised(x, (0,), torch.ones(3), torch.zeros(3)))


class DropPath(nn.Module):
    """As timm's and torchvision's: drops whole rows, and is no subclass of torch's dropout."""

    def forward(self, x):
        return x * x.new_empty(len(x), 1).bernoulli_(0.5) if self.training else x


@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_stochastic_depth_is_seeded_like_dropout(way):
    module = nn.Sequential(nn.Linear(3, 8), DropPath(), nn.Linear(8, 2))
    stack, theta, x = STACKS[way](module), parameters(module)[None], torch.randn(40, 3)
    outputs = []
    for noise in (1, 2, 1):
        stack.reseed(noise)
        outputs.append(stack.forward(theta, x))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_a_score_does_not_depend_on_how_many_rows_are_predicted_at_a_time(monkeypatch):
    """Row by row there are no statistics of the scored data at all."""
    x, y = draws(0, 60, 4).float(), draws(1, 60, 1).float()

    def network():
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    task = evoloss.supervised(
        x, y, network=network, training=evoloss.Training(batch=16, steps=5)
    )  # fmt: skip
    scores = []
    for rows in (2048, 1):
        monkeypatch.setattr("evoloss.engine.training._PREDICTED_ROWS", rows)
        [row] = evoloss.evaluate(task, {"usual": parse(task.usual_loss)}, seeds=2).rows
        scores.append(row.scores)
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
