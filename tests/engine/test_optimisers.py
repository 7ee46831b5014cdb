"""SGD and Adam against torch.optim, by displacement from the start, in double precision."""

import itertools

import pytest
import torch

from evoloss.engine.optimisers import SGD, Adam

KINDS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.2},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.8, "nesterov": True},
    {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.03},
]
STEPS = 60


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(theta):
    """The gradient of a function with curvature and cross terms, on which no step diverges."""
    return theta + 0.3 * torch.cos(2 * theta) + 0.1 * torch.tanh(theta.sum())


def with_torch(optimiser, start):
    """The way of the parameters under one of torch's optimisers, relative to the start."""
    theta = start.clone().requires_grad_()
    stepper = optimiser([theta])
    way = []
    for _ in range(STEPS):
        theta.grad = slope(theta.detach())
        stepper.step()
        way.append(theta.detach() - start)
    return torch.stack(way)


def with_ours(optimiser, start):
    theta, state = start, optimiser.init(start)
    way = []
    for _ in range(STEPS):
        theta, state = optimiser.update(theta, slope(theta), state)
        way.append(theta - start)
    return torch.stack(way)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sgd_is_torchs(kind):
    start = 0.3 * draws(0, 7)
    expected = with_torch(lambda leaves: torch.optim.SGD(leaves, **kind), start)
    torch.testing.assert_close(with_ours(SGD(**kind), start), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("lr", [1e-3, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_adam_is_torchs(lr, betas):
    start = 0.3 * draws(1, 5)
    expected = with_torch(lambda leaves: torch.optim.Adam(leaves, lr=lr, betas=betas), start)
    found = with_ours(Adam(lr, *betas), start)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_adam_at_a_zero_gradient_stays():
    adam, theta = Adam(0.1), draws(2, 4)
    stepped, state = adam.update(theta, torch.zeros(4, dtype=torch.float64), adam.init(theta))
    assert torch.equal(stepped, theta)
    assert state.step == 1


def test_adam_leaves_its_arguments_alone():
    adam, theta, gradient = Adam(0.1), draws(3, 4), draws(4, 4)
    _, state = adam.update(theta, gradient, adam.init(theta))
    before = [each.clone() for each in (theta, gradient, state.first, state.second)]
    adam.update(theta, gradient, state)
    for a, b in zip((theta, gradient, state.first, state.second), before, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_in_place_is_the_same(kind):
    sgd, start = SGD(**kind), draws(5, 3, 4)
    theta, velocity = start.clone(), sgd.init(start)
    pure, pure_velocity = start, sgd.init(start)
    for _ in range(10):
        gradient = slope(pure)
        pure, pure_velocity = sgd.update(pure, gradient, pure_velocity)
        sgd.update_(theta, gradient.clone(), velocity)
        torch.testing.assert_close(theta, pure, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(velocity, pure_velocity, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sgd_leaves_its_arguments_alone(kind):
    arguments = [draws(seed, 4) for seed in (6, 7, 8)]
    before = [each.clone() for each in arguments]
    SGD(**kind).update(*arguments)
    for a, b in zip(arguments, before, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sgd_is_differentiable_in_parameters_gradient_and_velocity(kind):
    leaves = [draws(seed, 3).requires_grad_() for seed in (9, 10, 11)]
    assert torch.autograd.gradcheck(SGD(**kind).update, leaves)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_first_step_factor_is_how_far_the_first_step_goes(kind):
    sgd, theta = SGD(**kind), torch.zeros(3, dtype=torch.float64)  # at zero nothing decays
    gradient = draws(12, 3)
    stepped, _ = sgd.update(theta, gradient, sgd.init(theta))
    torch.testing.assert_close(stepped, -sgd.lr * sgd.first_step_factor * gradient)


def test_rows_of_a_stack_do_not_see_each_other():
    start = draws(13, 3, 4)
    for optimiser in (SGD(0.1, 0.9, True, 0.01), Adam(0.1)):
        theta, state = start, optimiser.init(start)
        alone, states = list(start), [optimiser.init(row) for row in start]
        for _, p in itertools.product(range(4), range(3)):
            alone[p], states[p] = optimiser.update(alone[p], torch.sin(alone[p]), states[p])
        for _ in range(4):
            theta, state = optimiser.update(theta, torch.sin(theta), state)
        torch.testing.assert_close(theta, torch.stack(alone), rtol=1e-13, atol=1e-13)
