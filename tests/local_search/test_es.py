"""Evolution strategies against the closed form, their own variance, and their contract."""

import numpy as np
import pytest
import torch
from torch import nn

from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, parameters
from evoloss.lang.parse import parse
from evoloss.local_search import es as module
from evoloss.local_search.es import EvolutionStrategies
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import one_step_hypergradient
from quadratic import PHI, SQUARED, STACKS, Quadratic, relative_error

PLAIN = SGD(0.1, weight_decay=0.05)
WILD = parse("y * exp(exp(100.0 * (f + 10.0)))")


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("steps", [1, 3])
def test_many_pairs_find_the_closed_form_within_their_standard_error(steps):
    task = Quadratic(PLAIN)
    pairs = 1500
    expected = task.slopes(lambda phi: task.after(steps, phi))
    found = EvolutionStrategies(pairs, 0.01)(*task.arguments(steps), rng())
    # Of ε (ε·g), the estimate of a linear T, the variance in coordinate i is |g|² + g_i².
    deviation = (expected.square().sum(1, keepdim=True) + expected.square()).sqrt() / pairs**0.5
    assert ((found - expected).abs() < 4 * deviation).all()
    assert (relative_error(found, expected) < 0.1).all()


@pytest.mark.parametrize("stack", STACKS)
def test_a_pair_is_two_trainings_in_closed_form(stack):
    """With the same ε, the estimate itself, and not only its mean."""
    task, sigma, pairs = Quadratic(PLAIN, stack=stack), 0.05, 4
    found = EvolutionStrategies(pairs, sigma)(*task.arguments(3), rng(7))
    epsilon = torch.from_numpy(rng(7).standard_normal((3, pairs))).T

    def outcome(phi):
        return task.outcome(task.after(3, phi))

    for row, phi in zip(found, task.phi, strict=True):
        each = [(outcome(phi + sigma * e) - outcome(phi - sigma * e)) * e for e in epsilon]
        expected = torch.stack(each).mean(0) / (2 * sigma)
        torch.testing.assert_close(row, expected, rtol=1e-8, atol=1e-12)


def test_pairs_vary_less_than_as_many_single_trainings():
    task, sigma, pairs = Quadratic(PLAIN), 0.05, 4
    arguments = task.arguments(1)

    def single(draw):
        epsilon = torch.from_numpy(draw.standard_normal((2 * pairs, 3)))
        phi = task.phi[0]
        each = [task.outcome(task.after(1, phi + sigma * e)) * e / sigma for e in epsilon]
        return torch.stack(each).mean(0)

    paired = EvolutionStrategies(pairs, sigma)
    both = [torch.stack([paired(*arguments, rng(seed))[0] for seed in range(100)])]
    both.append(torch.stack([single(rng(seed)) for seed in range(100)]))
    antithetic, plain = (draws.var(0).sum() for draws in both)
    assert antithetic < plain / 10


def test_it_uses_no_derivative_in_phi_and_none_of_second_order(monkeypatch):
    expected = EvolutionStrategies()(*Quadratic(PLAIN).arguments(2), rng())

    def forbidden(*_):
        raise AssertionError("a second derivative was asked for")

    monkeypatch.setattr(LossPopulation, "curvature", forbidden)
    values = LossPopulation.values_and_gradients

    def value_only(*arguments):
        value, by_prediction, by_phi = values(*arguments)
        return value, by_prediction * torch.nan, by_phi * torch.nan

    monkeypatch.setattr(LossPopulation, "values_and_gradients", value_only)
    task = Quadratic(PLAIN)
    assert torch.equal(EvolutionStrategies()(*task.arguments(2), rng()), expected)


class Opaque(torch.autograd.Function):
    """The identity, differentiable once and backwards only."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Handwritten(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1, bias=False)

    def forward(self, x):
        return Opaque.apply(self.layer(x))


def test_a_network_without_second_derivatives_is_no_obstacle():
    task = Quadratic(PLAIN)
    _, theta, batches, validation, phi = task.arguments(1)
    network = Handwritten().double()
    assert parameters(network).shape == theta[0].shape
    inner = Inner(LoopStack(network), *(getattr(task.inner, name) for name in
                  ("losses", "usual", "output", "sgd")))  # fmt: skip
    with pytest.raises(RuntimeError):
        one_step_hypergradient(inner, theta, batches[0], validation, phi)
    found = EvolutionStrategies()(inner, theta, batches, validation, phi, rng())
    expected = EvolutionStrategies()(*task.arguments(1), rng())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# The contract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_that_overflows_spoils_only_its_own_row(dtype):
    task = Quadratic(PLAIN, dtype, losses=(SQUARED, SQUARED, WILD))
    found = EvolutionStrategies()(*task.arguments(2), rng())
    assert not found[-1].isfinite().any()
    alone = EvolutionStrategies()(*Quadratic(PLAIN, dtype).arguments(2), rng())
    torch.testing.assert_close(found[: len(PHI), :3], alone, rtol=1e-9, atol=1e-12)
    assert not found[: len(PHI), 3:].any()


def test_a_pair_of_which_one_breaks_down_is_left_out(monkeypatch):
    task, sigma, pairs = Quadratic(PLAIN), 0.05, 4
    judged, third = module.task_loss, torch.tensor([2 * len(PHI)])
    monkeypatch.setattr(
        module, "task_loss", lambda *given: judged(*given).index_fill(0, third, torch.inf)
    )
    found = EvolutionStrategies(pairs, sigma)(*task.arguments(1), rng())[0]
    epsilon = torch.from_numpy(rng().standard_normal((3, pairs))).T

    def outcome(phi):
        return task.outcome(task.after(1, phi))

    each = [
        (outcome(task.phi[0] + sigma * e) - outcome(task.phi[0] - sigma * e)) * e / (2 * sigma)
        for number, e in enumerate(epsilon)
        if number != 2
    ]
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-8, atol=1e-12)


def test_large_networks_train_their_pairs_in_parts(monkeypatch):
    task = Quadratic(PLAIN)
    together = EvolutionStrategies(5)(*task.arguments(2), rng())
    monkeypatch.setattr(module, "_BYTES", 2 * 2 * len(PHI) * 3 * 8)  # two pairs
    parts = EvolutionStrategies(5)(*task.arguments(2), rng())
    torch.testing.assert_close(parts, together, rtol=1e-10, atol=1e-13)


def test_nothing_that_is_given_is_changed_and_the_rng_decides_all():
    task = Quadratic(PLAIN, torch.float32)
    inner, theta, batches, validation, phi = task.arguments(2)
    before = [each.clone() for each in (theta, phi, *batches[0], *validation)]
    first, again, other = (
        EvolutionStrategies()(inner, theta, batches, validation, phi, rng(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.dtype == torch.float64
    assert not first.requires_grad
    for given, was in zip((theta, phi, *batches[0], *validation), before, strict=True):
        assert torch.equal(given, was)
