"""Loss networks in a population, fixed and tuned, against a plain module and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.fan import fan
from evoloss.engine.loss_population import LossPopulation, values
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import parameters
from evoloss.engine.training import Batches, Trained, minibatches, train
from evoloss.lang.expr import call, scaled
from evoloss.lang.network import SHAPES, WEIGHTS, Network
from evoloss.lang.parse import parse, parse_expression
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import hypergradient
from loss_oracle import derivatives, sequential

TRANSFORMS = {"identity": lambda r: r, "sigmoid": torch.sigmoid, "softmax": lambda r: r.softmax(-1)}
OUTPUTS = tuple(TRANSFORMS)


def network(seed, size=0.3):
    return Network.of((size * np.random.default_rng(seed).normal(size=WEIGHTS)).tolist())


NETS = [network(seed) for seed in range(3)]


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(rows, classes):
    return torch.eye(classes, dtype=torch.float64)[torch.arange(rows) % classes]


def some_zero(rows, classes):
    """Real targets, a third of them zero."""
    y = normal(5, rows, classes)
    return torch.where(normal(6, rows, classes) > 0.4, torch.zeros_like(y), y)


def losses_of(nets, f, y):
    """(P,) by the plain modules: summed over outputs, averaged over rows."""
    return torch.stack([
        sequential(net.weights)(torch.stack([y, each], -1)).sum() / len(y)
        for net, each in zip(nets, f, strict=True)
    ])  # fmt: skip


def value_of(f, phi, y):
    """(P,) with weights φ (P, N), as products that autograd can follow to φ."""
    x = torch.stack([y.expand_as(f), f], -1)
    totals = []
    for each, row in zip(x, phi, strict=True):
        one, two, three = row.split([a * b for a, b in SHAPES])
        hidden = torch.relu(torch.relu(each @ one.view(50, 2).T) @ two.view(50, 50).T)
        totals.append(torch.nn.functional.softplus(hidden @ three, threshold=40).sum() / len(y))
    return torch.stack(totals)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("weights", ["none", "constants"])
@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize("target", [one_hot, some_zero])
def test_gradients_are_those_of_the_module(output, weights, backend, target):
    population = LossPopulation(NETS, weights, backend)
    raw, y = normal(0, 3, 30, 4), target(30, 4)
    raw[:, :4] = 0.0  # among these, points with y = f = 0, where every unit is off
    raw.requires_grad_()
    total = losses_of(NETS, TRANSFORMS[output](raw), y).sum()
    (expected,) = torch.autograd.grad(total, raw)
    found = population.gradient(raw.detach(), y, population.initial_phi(), output)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("weights", ["none", "constants"])
def test_values_at_moderate_and_huge_outputs(weights):
    nets = [network(0), network(1, size=20.0)]
    population = LossPopulation(nets, weights)
    f, y = 3.0 * normal(1, 2, 30, 2), some_zero(30, 2)
    expected = losses_of(nets, f, y)
    assert expected[1] > 1e3 > expected[0]
    phi = population.initial_phi()
    torch.testing.assert_close(
        population.values_and_gradients(f, y, phi)[0], expected, rtol=1e-10, atol=0
    )
    torch.testing.assert_close(values(population, f, y, phi), expected, rtol=1e-10, atol=0)


def test_losses_of_both_kinds_side_by_side():
    """Networks with fixed weights, a multiple of one and one within a formula, among formulas."""
    within = call("add", call("square", parse("y - f")), call("tanh", NETS[1]))
    mixed = [parse("square(y - f)"), NETS[0], scaled(NETS[0], 2.0), within, parse("abs(y - f)")]
    f, y = normal(2, 5, 20, 1), normal(3, 20, 1)
    fused, torch_form = (LossPopulation(mixed, "none", backend) for backend in ("fused", "torch"))
    alone = losses_of([NETS[0]], f[1:2], y)
    phi = fused.initial_phi()
    found = fused.values_and_gradients(f, y, phi)
    torch.testing.assert_close(found[0][1:2], alone)
    again = torch_form.values_and_gradients(f, y, phi)
    torch.testing.assert_close(found[:2], again[:2])
    w = normal(4, *f.shape)
    bends = [each.curvature(f, y, phi, w)[0] for each in (fused, torch_form)]
    torch.testing.assert_close(*bends, rtol=1e-9, atol=1e-12)


def test_a_population_that_is_tuned_may_mix_them_too():
    within = call("mul", parse_expression("2 * y"), NETS[1])
    population = LossPopulation([NETS[0], within], "constants")
    f, y = normal(2, 2, 9, 2), some_zero(9, 2)
    phi = population.initial_phi()
    assert population.programs.weights.tolist() == [WEIGHTS, 1 + WEIGHTS]
    expected = losses_of([NETS[0]], f[:1], y)
    torch.testing.assert_close(population.values_and_gradients(f, y, phi)[0][:1], expected)
    phi[1, 0] = 3.0
    inner = sequential(NETS[1].weights)(torch.stack([y, f[1]], -1))[..., 0]
    value = values(population, f, y, phi)[1]
    torch.testing.assert_close(value, (3.0 * y * inner).sum() / 9)


@pytest.mark.parametrize("target", [one_hot, some_zero])
@pytest.mark.parametrize("along_phi", [False, True])
def test_curvature_is_double_backward(target, along_phi):
    population = LossPopulation(NETS, "constants")
    f, y, w = normal(1, 3, 20, 3), target(20, 3), normal(2, 3, 20, 3)
    f[0, :2] = 0.0  # among them points with y = f = 0, where every unit is off
    phi = population.initial_phi()
    z = normal(3, *phi.shape) if along_phi else torch.zeros_like(phi)
    expected = derivatives(lambda f, phi: value_of(f, phi, y), f, phi, w, z)[3:]
    found = population.curvature(f, y, phi, w, z if along_phi else None)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-13)


def test_gradients_in_the_weights_are_autograd_s():
    population = LossPopulation(NETS, "constants")
    f, y = normal(1, 3, 20, 2), some_zero(20, 2)
    phi = population.initial_phi().requires_grad_()
    expected = torch.autograd.grad(value_of(f, phi, y).sum(), phi)[0]
    found = population.values_and_gradients(f, y, phi.detach())[2]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_what_is_not_a_number_stays_with_its_network():
    population = LossPopulation(NETS, "constants")
    f, y, w = normal(1, 3, 20, 3), one_hot(20, 3), normal(2, 3, 20, 3)
    phi = population.initial_phi()
    broken = phi.clone()
    broken[1, 100] = torch.nan
    sound = [0, 2]
    gradients = [population.gradient(f, y, each, "identity") for each in (phi, broken)]
    bends = [population.curvature(f, y, each, w)[1] for each in (phi, broken)]
    for good, bad in (gradients, bends):
        assert torch.equal(good[sound], bad[sound])
        assert bad[1].isnan().any()


def test_rejection_moves_predictions_as_tensor_operations_do():
    raw, y = normal(0, 25, 2), normal(1, 25, 2)
    moved = []
    for backend in ("fused", "torch"):
        population = LossPopulation(NETS, "none", backend)
        phi = population.initial_phi()
        moved.append(population.minimise(raw, y, phi, "identity", 30, 0.05) - raw)
    torch.testing.assert_close(*moved, rtol=1e-6, atol=1e-9)


def test_compiled_training_is_that_of_tensor_operations(monkeypatch):
    """The fused dense training under fixed networks, against the loop over steps.

    Networks whose weights are given from outside are always trained by the loop.
    """
    from evoloss.engine import training

    module = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2))
    torch.manual_seed(0)
    x, y = torch.randn(50, 3), torch.randn(50, 2)
    stack = DenseStack(module, dense_layers(module))
    start = Trained.start(parameters(module)[None], 3)
    batches = minibatches(50, 16, 12, np.random.default_rng(0))

    def moved(weights):
        losses = LossPopulation(NETS, weights)
        phi = losses.initial_phi()
        found = train(start, stack, losses, phi, Batches(x, y, batches), "identity", SGD(0.05))
        return found.theta - start.theta

    compiled, given = moved("none"), moved("constants")
    monkeypatch.setattr(training, "fused", lambda *_: None)
    for found in (compiled, given):
        torch.testing.assert_close(found, moved("none"), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("output", ["identity", "softmax"])
def test_hypergradients_are_double_backward_through_training(steps, output):
    torch.manual_seed(0)
    module = nn.Linear(5, 3).double()
    sgd = SGD(0.5, momentum=0.9, nesterov=True, weight_decay=0.1)
    usual = parse("square(y - f)")
    inner = Inner(
        DenseStack(module, dense_layers(module)),
        LossPopulation(NETS, "constants"),
        LossPopulation([usual] * 3, "none"),
        output,
        sgd,
    )
    batches = [(normal(n, 8, 5), one_hot(8, 3)) for n in range(steps)]
    held_out = normal(9, 8, 5), one_hot(8, 3)
    theta, phi = parameters(module)[None], inner.losses.initial_phi()
    found = hypergradient(inner, theta, batches, held_out, phi)

    def predicted(weights, x):
        names = [name for name, _ in module.named_parameters()]
        shaped = [part.view(p.shape) for part, p in zip(
            weights.split([p.numel() for p in module.parameters()]), module.parameters(),
            strict=True,
        )]  # fmt: skip
        return TRANSFORMS[output](functional_call(module, dict(zip(names, shaped, strict=True)), x))

    for net, slope in zip(NETS, found, strict=True):
        row = torch.tensor(net.weights, dtype=torch.float64, requires_grad=True)
        weights, velocity = theta[0].clone().requires_grad_(), torch.zeros_like(theta[0])
        for x, y in batches:
            loss = value_of(predicted(weights, x)[None], row[None], y)[0]
            (g,) = torch.autograd.grad(loss, weights, create_graph=True)
            g = g + 0.1 * weights
            velocity = 0.9 * velocity + g
            weights = weights - 0.5 * (g + 0.9 * velocity)
        x, y = held_out
        outcome = (predicted(weights, x) - y).square().sum() / len(y)
        (expected,) = torch.autograd.grad(outcome, row)
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-13)


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 5.0]))
@examples(max_examples=15)
def test_the_sectors_of_a_fan_begin_where_a_unit_changes_sign(seed, size):
    """Every two neighbouring sectors meet: the planes on either side agree where they touch."""
    begins, slopes = fan(network(seed, size))
    assert begins[0] == -2.0
    assert (np.diff(begins) > 0).all()
    y = np.where(begins >= 0, 1 - begins, 1 + begins)
    f = np.where(begins >= 0, 1 - np.abs(y), np.abs(y) - 1)
    here = slopes[0] * y + slopes[1] * f
    before = np.roll(slopes[0], 1) * y + np.roll(slopes[1], 1) * f
    np.testing.assert_allclose(here, before, atol=1e-9 * np.abs(slopes).max())


def test_networks_that_have_no_sectors():
    """Without first weights the output is 0; with units that are never on, too."""
    flat = np.zeros(WEIGHTS)
    off = np.abs(np.array(NETS[0].weights))
    off[100:2600] *= -1.0
    nets = [Network.of(each.tolist()) for each in (flat, off)]
    population = LossPopulation(nets, "none")
    f, y = normal(0, 2, 9, 1), normal(1, 9, 1)
    value, slope, _ = population.values_and_gradients(f, y, population.initial_phi())
    torch.testing.assert_close(value, torch.full((2,), np.log(2.0), dtype=torch.float64))
    assert not slope.any()
