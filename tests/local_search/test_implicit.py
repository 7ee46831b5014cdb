"""Implicit hyper-gradients against closed forms, dense inverses and very long unrolls."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import parameters
from evoloss.lang.parse import parse
from evoloss.local_search.implicit import Implicit, conjugate_gradients, neumann
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import unrolled_hypergradient
from loss_oracle import batch_loss, weight_count
from quadratic import PHI, SQUARED, STACKS, Quadratic, relative_error

ENOUGH = {"cg": 5, "neumann": 600}
PLAIN, DECAY = SGD(0.1), SGD(0.1, weight_decay=0.05)
WILD = parse("y * exp(exp(100.0 * (f + 10.0)))")


# Against closed forms


@pytest.mark.parametrize("solver", ENOUGH)
@pytest.mark.parametrize("sgd", [PLAIN, DECAY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stack", STACKS)
def test_at_the_optimum_of_a_quadratic_task_it_is_exact(solver, sgd, dtype, stack):
    task = Quadratic(sgd, dtype, stack)
    find = Implicit(solver, ENOUGH[solver], damping=0.0)
    expected = task.slopes(task.optimum)
    inner, theta, batches, validation, phi = task.arguments(steps=300)
    found = find(inner, theta, batches, validation, phi)
    assert found.dtype == torch.float64
    assert (relative_error(found, expected) < 1e-3).all()
    if dtype == torch.float64:
        assert (relative_error(found, expected) < 1e-6).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("sgd", [PLAIN, DECAY])
@pytest.mark.parametrize("stack", STACKS)
def test_unrolled_steps_of_the_same_task_are_exact(steps, sgd, stack):
    """The companion: what K steps reach, and not only their end, has a closed form too."""
    task = Quadratic(sgd, stack=stack)
    found = unrolled_hypergradient(*task.arguments(steps))
    expected = task.slopes(lambda phi: task.after(steps, phi))
    assert (relative_error(found, expected) < 1e-9).all()


def test_momentum_reaches_the_same_optimum_and_slope():
    task = Quadratic(SGD(0.05, momentum=0.8, nesterov=True))
    found = Implicit(damping=0.0)(*task.arguments(steps=200))
    assert (relative_error(found, task.slopes(task.optimum)) < 1e-6).all()


def test_a_neumann_series_is_so_many_more_steps_from_the_optimum():
    """At rest, k terms are exactly k unrolled steps of plain SGD (Lorraine et al. 2020, sec. 3)."""
    task = Quadratic(DECAY)
    for row, phi in enumerate(task.phi):
        at_rest = task.optimum(phi)[None]
        found = Implicit("neumann", 7, damping=0.0)(*task.arguments(1, at_rest))
        expected = unrolled_hypergradient(*task.arguments(7, at_rest))
        torch.testing.assert_close(found[row], expected[row], rtol=1e-8, atol=1e-12)


# Against a dense inverse


def dense_inverse(network, theta, expr, phi, batch, validation, decay, damping):
    """The formula itself, from full second derivatives by plain torch. θ: (D,), φ: (n,)."""
    layout = [(name, p.shape, p.numel()) for name, p in network.named_parameters()]

    def f(row, x):
        parts = row.split([size for *_, size in layout])
        named = {n: p.view(shape) for (n, shape, _), p in zip(layout, parts, strict=True)}
        return torch.softmax(functional_call(network, named, (x,)), -1)

    def learned(row, weights):
        loss = batch_loss(expr, batch[1], f(row, batch[0]), weights)
        return loss + decay / 2 * row.square().sum()

    def judged(row):
        x, y = validation
        return batch_loss(parse("-y * log(f)"), y, f(row, x), weights="none")

    (by_theta, mixed), _ = torch.autograd.functional.hessian(learned, (theta, phi))
    v = torch.func.grad(judged)(theta)
    return -torch.linalg.solve(by_theta + damping * torch.eye(len(theta)), v) @ mixed


@pytest.mark.parametrize("solver", ["cg", "neumann"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_network_with_hidden_units_against_its_dense_hessian(solver, decay):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    first, batch, validation = (
        (torch.randn(9, 4).double(), torch.rand(9, 3).double().softmax(-1)) for _ in range(3)
    )
    losses = [parse("square(y - f)"), parse("-y * log(f + 0.1)"), parse("abs(y - f) * f")]
    # Damped beyond all negative curvature, so that the formula has one meaning.
    damping, sgd = 1.0, SGD(0.3, weight_decay=decay)
    population = LossPopulation(losses)
    usual = LossPopulation([parse("-y * log(f)")] * len(losses), "none")
    inner = Inner(STACKS["dense"](network), population, usual, "softmax", sgd)
    phi = population.initial_phi() * (0.7 + 0.6 * torch.rand(population.initial_phi().shape))
    start = parameters(network)[None]
    stepped = by_torch_optim(inner, start, [first, batch], phi)
    terms = {"cg": 40, "neumann": 200}[solver]
    found = Implicit(solver, terms, damping)(inner, start, [first, batch], validation, phi)
    for p, expr in enumerate(losses):
        width = weight_count(expr)
        expected = dense_inverse(
            network, stepped[p], expr, phi[p, :width], batch, validation, decay, damping
        )
        torch.testing.assert_close(found[p, :width], expected, rtol=1e-4, atol=1e-9)
        assert not found[p, width:].any()


def by_torch_optim(inner, start, batches, phi):
    """θ (P, D) after a step of torch.optim per batch, for each loss alone."""
    network, rows = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double(), []
    for p, expr in enumerate(inner.losses.expressions):
        nn.utils.vector_to_parameters(start[0].clone(), network.parameters())
        sgd = torch.optim.SGD(
            network.parameters(), inner.sgd.lr, weight_decay=inner.sgd.weight_decay
        )
        for x, y in batches:
            sgd.zero_grad()
            f = torch.softmax(network(x), -1)
            batch_loss(expr, y, f, phi[p, : weight_count(expr)]).backward()
            sgd.step()
        rows.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    return torch.stack(rows)


# The solvers


def matrices(*eigenvalues):
    """Symmetric (P, D, D) of given eigenvalues (P, D), and their product with rows."""
    torch.manual_seed(1)
    rotations = [torch.linalg.qr(torch.randn(len(e), len(e)).double())[0] for e in eigenvalues]
    diagonals = torch.diag_embed(torch.tensor(eigenvalues, dtype=torch.float64))
    a = torch.stack([q @ d @ q.T for q, d in zip(rotations, diagonals, strict=True)])
    return a, lambda u: (a @ u[:, :, None])[:, :, 0]


def test_conjugate_gradients_solve_each_row_for_itself():
    a, product = matrices([1.0, 2.0, 3.0, 4.0], [1e-3, 1.0, 50.0, 1e3], [2.0, 2.0, 2.0, 2.0])
    v = torch.randn(3, 4).double()
    found = conjugate_gradients(product, v, 12)
    torch.testing.assert_close(found, torch.linalg.solve(a, v), rtol=1e-5, atol=1e-7)


def test_nothing_more_is_multiplied_once_every_row_is_solved():
    _, product = matrices([2.0, 2.0, 2.0], [3.0, 3.0, 3.0])
    seen = []

    def counted(u):
        seen.append(u)
        return product(u)

    conjugate_gradients(counted, torch.randn(2, 3).double(), 10)
    assert len(seen) == 1


def test_few_terms_are_the_best_within_the_krylov_space():
    a, product = matrices([0.5, 1.0, 3.0, 9.0])
    v = torch.randn(1, 4).double()
    basis = torch.stack([v[0], a[0] @ v[0]], dim=1)
    best = basis @ torch.linalg.solve(basis.T @ a[0] @ basis, basis.T @ v[0])
    torch.testing.assert_close(conjugate_gradients(product, v, 2)[0], best, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solve", ["cg", "neumann"])
def test_a_row_that_breaks_down_leaves_the_others_alone(solve):
    def run(product, v):
        if solve == "cg":
            return conjugate_gradients(product, v, 30, 0.05)
        return neumann(product, v, 300, 0.2)

    sound = [1.0, 2.0, 3.0, 4.0]
    a, product = matrices(sound, [-1.0, -2.0, -3.0, -4.0], [-1.0, 1.0, 2.0, 3.0], sound, sound)
    v = torch.randn(5, 4).double()
    v[4] = torch.nan

    def broken(u):
        image = product(u)
        image[3] = torch.inf * u[3].sign()
        return image

    found = run(broken, v)
    torch.testing.assert_close(found[0], torch.linalg.solve(a[0], v[0]), rtol=1e-6, atol=1e-9)
    assert found[:4].isfinite().all()
    assert found[4].isnan().all()
    # Where the first direction has no positive curvature, it is all there is.
    for row in (1, 3):
        torch.testing.assert_close(found[row], v[row] * (1.0 if solve == "cg" else 0.2))


def test_a_direction_of_no_slope_has_no_solution_to_find():
    _, product = matrices([1.0, 2.0])
    nothing = torch.zeros(1, 2).double()
    assert not conjugate_gradients(product, nothing, 5).any()
    assert not neumann(product, nothing, 5, 0.1).any()


# The contract


@pytest.mark.parametrize("solver", ["cg", "neumann"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_that_overflows_spoils_only_its_own_row(solver, dtype):
    task = Quadratic(PLAIN, dtype, losses=(SQUARED, SQUARED, WILD))
    found = Implicit(solver)(*task.arguments(5))
    assert not found[-1].isfinite().all()
    alone = Implicit(solver)(*Quadratic(PLAIN, dtype).arguments(5))
    torch.testing.assert_close(found[: len(PHI), :3], alone, rtol=1e-10, atol=1e-12)
    assert not found[: len(PHI), 3:].any()


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_without_curvature_the_damping_bounds_the_slope(solver):
    """A loss that is linear in θ has H = 0: the inverse is 1/λ."""
    task = Quadratic(PLAIN, losses=[parse("y * f + f")] * 2)
    expected = 2.0 * Implicit(solver, 2000, damping=0.2)(*task.arguments(3))
    assert expected.isfinite().all()
    found = Implicit(solver, 2000, damping=0.1)(*task.arguments(3))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_nothing_that_is_given_is_changed_and_it_is_repeatable():
    task = Quadratic(DECAY)
    inner, theta, batches, validation, phi = task.arguments(3)
    before = [each.clone() for each in (theta, phi, *batches[0], *validation)]
    first = Implicit()(inner, theta, batches, validation, phi)
    assert torch.equal(first, Implicit()(inner, theta, batches, validation, phi))
    assert not first.requires_grad
    assert not phi.requires_grad
    for given, was in zip((theta, phi, *batches[0], *validation), before, strict=True):
        assert torch.equal(given, was)
