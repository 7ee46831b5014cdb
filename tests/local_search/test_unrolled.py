"""Hyper-gradients against double backward through the whole unroll, differences, closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, VmapStack, parameters
from evoloss.engine.stacking import make_stack
from evoloss.lang.parse import parse
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import (
    hypergradient,
    one_step_hypergradient,
    unrolled_hypergradient,
)
from loss_oracle import batch_loss, weight_count

LOSSES = [
    parse(text)
    for text in (
        "square(y - f)",
        "tanh(y) * f + aq(square(y - f), 1.0 + f)",
        "y * log(2.0 + f * f) - sqrt(abs(y - f) + 0.3)",
        "max(f, y) * f",
    )
]
USUAL = {
    "identity": parse("square(y - f)"),
    "sigmoid": parse("-y * log(f) - (1.0 - y) * log(1.0 - f)"),
    "softmax": parse("-y * log(f)"),
}
TRANSFORMS = {
    "identity": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "softmax": lambda raw: torch.softmax(raw, -1),
}
SGDS = {
    "plain": SGD(0.3),
    "decay": SGD(0.3, weight_decay=0.1),
    "momentum": SGD(0.2, momentum=0.9, weight_decay=0.1),
    "nesterov": SGD(0.2, momentum=0.9, nesterov=True, weight_decay=0.1),
}
INPUTS, OUTPUTS, ROWS = 6, 3, 5


def mlp():
    return nn.Sequential(nn.Linear(INPUTS, 4), nn.Tanh(), nn.Linear(4, OUTPUTS))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 2)
        self.head = nn.Linear(4, OUTPUTS)

    def forward(self, x):
        maps = self.convolution(x.view(-1, 1, 2, 3))
        return self.head(nn.functional.softplus(maps).flatten(1))


def noisy():
    return nn.Sequential(nn.Linear(INPUTS, 8), nn.Dropout(0.4), nn.Linear(8, OUTPUTS))


STACKS = {
    "mlp-dense": (mlp, lambda module: DenseStack(module, dense_layers(module))),
    "mlp-loop": (mlp, LoopStack),
    "convolution-loop": (Convolution, LoopStack),
    "convolution-vmap": (Convolution, lambda module: VmapStack(module, 3)),
    "convolution-mixed": (
        Convolution,
        lambda module: make_stack(module, {"train": "loop", "pull_shared": "vmap", "push": "loop"}),
    ),
}


def draws(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(network):
    torch.manual_seed(3)
    return network().double()


def batches_of(steps):
    def batch(seed):
        return draws(seed, ROWS, INPUTS) * 2 - 1, draws(seed + 50, ROWS, OUTPUTS)

    return [batch(seed) for seed in range(steps)], batch(20)


def setting(stack, output, sgd, losses=LOSSES):
    """The inner problem, the initial θ (1, D), and φ away from its start."""
    network, make = STACKS[stack]
    module = made(network)
    population = LossPopulation(losses)
    usual = LossPopulation([USUAL[output]] * len(losses), "none")
    inner = Inner(make(module), population, usual, output, sgd)
    phi = population.initial_phi() * (0.7 + 0.6 * draws(9, *population.initial_phi().shape))
    return inner, parameters(module)[None], phi


def unrolled_by_torch(network, output, sgd, expr, batches, validation, phi):
    """The validation task loss after the steps, with the whole graph, written out plainly."""
    module = made(network)
    theta = {name: p.detach().clone() for name, p in module.named_parameters()}
    velocity = None
    for x, y in batches:
        theta = {name: p if p.requires_grad else p.requires_grad_() for name, p in theta.items()}
        loss = batch_loss(expr, y, TRANSFORMS[output](functional_call(module, theta, (x,))), phi)
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        d = [g + sgd.weight_decay * p for g, p in zip(slopes, theta.values(), strict=True)]
        if sgd.momentum:
            velocity = d if velocity is None else [
                sgd.momentum * v + g for v, g in zip(velocity, d, strict=True)
            ]  # fmt: skip
            d = (
                [g + sgd.momentum * v for g, v in zip(d, velocity, strict=True)]
                if sgd.nesterov
                else velocity
            )
        moved = [p - sgd.lr * step for p, step in zip(theta.values(), d, strict=True)]
        theta = dict(zip(theta, moved, strict=True))
    x, y = validation
    return batch_loss(USUAL[output], y, TRANSFORMS[output](functional_call(module, theta, (x,))),
                      weights="none")  # fmt: skip


def expected_hypergradient(stack, output, sgd, batches, validation, phi, losses=LOSSES):
    """(P, N) by double backward, one loss after the other; zero in the padding."""
    found = torch.zeros_like(phi)
    for p, expr in enumerate(losses):
        width = weight_count(expr)
        leaf = phi[p, :width].clone().requires_grad_()
        args = (STACKS[stack][0], output, sgd, expr, batches, validation)
        (found[p, :width],) = torch.autograd.grad(unrolled_by_torch(*args, leaf), leaf)
    return found


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("output", USUAL)
@pytest.mark.parametrize("sgd", SGDS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_double_backward_through_the_whole_unroll(stack, output, sgd, steps):
    inner, theta, phi = setting(stack, output, SGDS[sgd])
    batches, validation = batches_of(steps)
    expected = expected_hypergradient(stack, output, SGDS[sgd], batches, validation, phi)
    assert (expected.abs().amax(1) > 1e-6).all()
    found = unrolled_hypergradient(inner, theta, batches, validation, phi)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-11)
    widths = torch.tensor([weight_count(expr) for expr in LOSSES])
    assert not found[torch.arange(found.shape[1]) >= widths[:, None]].any()
    if steps == 1:
        one = one_step_hypergradient(inner, theta, batches[0], validation, phi)
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-11)
        torch.testing.assert_close(one, found, rtol=1e-5, atol=1e-11)
    chosen = hypergradient(inner, theta, batches, validation, phi)
    torch.testing.assert_close(chosen, expected, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("output", USUAL)
def test_finite_differences_in_phi(steps, output):
    sgd, step = SGDS["nesterov"], 1e-5
    smooth = [parse("square(y - f)"), parse("y * tanh(f) + aq(f, y)")]
    inner, theta, phi = setting("mlp-dense", output, sgd, smooth)
    batches, validation = batches_of(steps)
    found = hypergradient(inner, theta, batches, validation, phi)
    for p, expr in enumerate(smooth):
        width = weight_count(expr)
        for n in range(width):
            ends = []
            for sign in (1, -1):
                moved = phi[p, :width].clone()
                moved[n] += sign * step
                ends.append(
                    unrolled_by_torch(mlp, output, sgd, expr, batches, validation, moved).item()
                )
            slope = (ends[0] - ends[1]) / (2 * step)
            assert found[p, n].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_quadratic_problem_in_closed_form(steps):
    """One weight θ, f = θ, loss (u (v y − w f))²: θ_k+1 = (1 − a) θ_k + b, all by hand."""
    rate, y, goal, start = 0.1, 1.7, 0.4, 0.25
    u, v, w = 0.9, 1.2, 0.8
    module = nn.Linear(1, 1, bias=False).double()
    inner = Inner(
        DenseStack(module, dense_layers(module)),
        LossPopulation([parse("square(y - f)")]),
        LossPopulation([parse("square(y - f)")], "none"),
        "identity",
        SGD(rate),
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    phi = torch.tensor([[u, v, w]], dtype=torch.float64)
    found = hypergradient(inner, start * one, [(one, y * one)] * steps, (one, goal * one), phi)

    a, b = 2 * rate * u**2 * w**2, 2 * rate * u**2 * v * w * y
    keep = (1 - a) ** steps
    end = keep * start + b * (1 - keep) / a
    by_a = -steps * (1 - a) ** (steps - 1) * (start - b / a) - b * (1 - keep) / a**2
    by_b = (1 - keep) / a
    change = [
        by_a * 2 * a / u + by_b * 2 * b / u,
        by_b * b / v,
        by_a * 2 * a / w + by_b * b / w,
    ]
    expected = [2 * (end - goal) * each for each in change]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-10)


def test_more_weights_on_a_loss_beside_do_not_matter():
    """The row of a loss does not depend on its neighbours in the population."""
    sgd = SGDS["nesterov"]
    batches, validation = batches_of(2)
    inner, theta, phi = setting("mlp-dense", "softmax", sgd)
    together = hypergradient(inner, theta, batches, validation, phi)
    for p, expr in enumerate(LOSSES):
        alone, theta, _ = setting("mlp-dense", "softmax", sgd, [expr])
        width = weight_count(expr)
        row = hypergradient(alone, theta, batches, validation, phi[p : p + 1, :width])[0]
        torch.testing.assert_close(row, together[p, :width], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("stack", ["mlp-dense", "convolution-vmap"])
def test_a_loss_that_overflows_spoils_only_its_own_row(steps, stack):
    sgd = SGDS["nesterov"]
    wild = [*LOSSES, parse("y * exp(exp(100.0 * (f + 10.0)))")]
    batches, validation = batches_of(steps)
    inner, theta, phi = setting(stack, "identity", sgd, wild)
    found = hypergradient(inner, theta, batches, validation, phi)
    assert not found[-1].isfinite().all()
    expected = expected_hypergradient(
        stack, "identity", sgd, batches, validation, phi[: len(LOSSES)]
    )
    torch.testing.assert_close(found[: len(LOSSES)], expected, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("make", [LoopStack, VmapStack])
def test_with_dropout_one_step_is_the_recursion_with_the_same_masks(make):
    module = made(noisy)
    losses = LossPopulation(LOSSES)
    usual = LossPopulation([USUAL["softmax"]] * len(LOSSES), "none")
    inner = Inner(make(module), losses, usual, "softmax", SGDS["nesterov"])
    theta, phi = parameters(module)[None], losses.initial_phi()
    [batch], validation = batches_of(1)
    found = []
    for noise in (1, 2):
        inner.stack.reseed(noise)
        one = one_step_hypergradient(inner, theta, batch, validation, phi)
        recursion = unrolled_hypergradient(inner, theta, [batch], validation, phi)
        torch.testing.assert_close(one, recursion, rtol=1e-8, atol=1e-12)
        found.append(one)
    assert not torch.allclose(*found)


@pytest.mark.parametrize("steps", [1, 3])
def test_nothing_that_is_given_is_changed_and_no_graph_is_kept(steps):
    inner, theta, phi = setting("mlp-dense", "softmax", SGDS["nesterov"])
    batches, validation = batches_of(steps)
    given = [theta, phi, *(each for batch in (*batches, validation) for each in batch)]
    before = [each.clone() for each in given]
    found = hypergradient(inner, theta, batches, validation, phi)
    assert not found.requires_grad
    assert found.dtype == torch.float64
    for a, b in zip(given, before, strict=True):
        assert torch.equal(a, b)


def test_single_precision_networks_give_the_same_to_their_precision():
    batches, validation = batches_of(2)
    rows = []
    for kind in (torch.float32, torch.float64):
        inner, theta, phi = setting("mlp-dense", "softmax", SGDS["nesterov"])
        cast = [(x.to(kind), y.to(kind)) for x, y in (*batches, validation)]
        for steps in (1, 2):
            rows.append(hypergradient(inner, theta.to(kind), cast[:steps], cast[-1], phi))
    for single, double in zip(rows[:2], rows[2:], strict=True):
        assert single.dtype == torch.float64
        torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-5)
    assert not math.isclose(rows[0].sum().item(), rows[2].sum().item(), rel_tol=1e-12)
