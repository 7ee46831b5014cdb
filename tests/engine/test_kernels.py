"""Fused kernels against autograd of a recursive torch evaluation: value, gradient, curvature."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evoloss.engine import loss_population
from evoloss.engine.loss_population import LossPopulation, values
from evoloss.engine.threads import spread
from evoloss.lang.expr import Call, Const, Expr, Input, walk
from evoloss.lang.ops import ELEMENTWISE, GUARD, Kind, Operator
from evoloss.lang.parse import parse
from evoloss.lang.weights import bind
from loss_oracle import OPERATORS, batch_loss, derivatives, element_loss, weight_count
from strategies import DYADIC, losses

Y, F = Input("y"), Input("f")
ORDINARY = (0.3, -2.1, 1.7, 0.05, -0.6)
HARSH = (
    0.0, 1.0, -1.0, 0.3, -2.1, GUARD, -GUARD, 0.99 * GUARD, 1.01 * GUARD, -1.01 * GUARD,
    1e30, -1e30, 1e100, -1e100,
)  # fmt: skip
BACKENDS = ("fused", "torch")
TRANSFORMS = {
    "identity": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "softmax": lambda raw: torch.softmax(raw, -1),
}


def direct(row: Operator) -> list[Expr]:
    """The operator over the inputs themselves, in every order."""
    if row.kind is Kind.COMPARISON:
        return [Call("where", (Call(row.name, pair), F, Y)) for pair in ((Y, F), (F, Y))]
    if row.kind is Kind.LOGICAL:
        masks = (Call("gt", (F, Y)), Call("lt", (F, Const(1.0))))
        return [Call("where", (Call(row.name, masks[: row.arity]), F, Y))]
    if row.kind is Kind.SELECTION:
        above = Call("gt", (F, Y))
        return [Call("where", (above, Y, F)), Call("where", (above, Call("square", (F,)), Y))]
    if row.arity == 1:
        return [Call(row.name, (F,))]
    return [Call(row.name, (Y, F)), Call(row.name, (F, Y))]


def composed(row: Operator) -> list[Expr]:
    """The operator over subtrees that bend, both depending on the prediction, under another."""
    a, b = parse("square(f) + y * f"), parse("tanh(f) - 2.5 * y")
    if row.name in ("ln", "root", "log1p", "pow"):
        a = parse("exp(tanh(f)) + square(y)")  # positive
    if row.kind is Kind.COMPARISON:
        inner = Call("where", (Call(row.name, (a, b)), a, b))
    elif row.kind is Kind.LOGICAL:
        masks = (Call("lt", (a, b)), Call("gt", (F, Const(0.1))))
        inner = Call("where", (Call(row.name, masks[: row.arity]), a, b))
    elif row.kind is Kind.SELECTION:
        inner = Call("where", (Call("lt", (a, b)), b, a))
    else:
        inner = Call(row.name, (a, b)[: row.arity])
    return [inner, Call("mul", (F, Call("tanh", (inner,))))]


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found_at_points(expr: Expr, y: float, f, phi, w, z):
    """What a population of M copies says, copy m at the prediction f[m] with the weights φ[m]."""
    copies = LossPopulation([expr] * len(f))
    target, prediction = torch.tensor([[y]], dtype=torch.float64), f.view(-1, 1, 1)
    value, by_f, by_phi = copies.values_and_gradients(prediction, target, phi)
    bend_f, bend_phi = copies.curvature(prediction, target, phi, w.view(-1, 1, 1), z)
    only = copies.gradient(prediction, target, phi)
    return [value, by_f.flatten(), by_phi, bend_f.flatten(), bend_phi], only.flatten()


def compare_at_points(expr: Expr, y: float, f, phi, w, z):
    """Compares every derivative in units of its argument (f ∂f and φ ∂φ), where terms compare.

    What is not a number in the one must not be one in the other: finite values agree.
    """
    unit = torch.where(f == 0, 1.0, f)
    w = w * unit
    expected = derivatives(
        lambda f, phi: element_loss(expr, torch.full_like(f, y), f, phi.unbind(1)), f, phi, w, z
    )
    found, only = found_at_points(expr, y, f, phi, w, z)
    gradient, curvature = (
        [
            torch.cat([(each[at] * unit)[:, None], each[at + 1] * phi], 1)
            for each in (found, expected)
        ]
        for at in (1, 3)
    )
    first = gradient[1].abs().amax(1, keepdim=True)
    second = first + curvature[1].abs().amax(1, keepdim=True)
    close(found[0], expected[0], torch.zeros(()), expr)
    close(*gradient, first, expr)
    close((only * unit)[:, None], gradient[1][:, :1], first, expr)
    close(*curvature, second, expr)


def close(found, expected, scale, expr):
    near = (found - expected).abs() <= 1e-11 * expected.abs() + 1e-12 * scale
    alike = near | (found == expected) | (~found.isfinite() & ~expected.isfinite())
    assert alike.all(), f"{expr}: {found[~alike]} instead of {expected[~alike]}"


def test_the_oracle_has_every_operator_of_the_table():
    assert set(OPERATORS) == {row.name for row in ELEMENTWISE}


def is_fair(row: Operator, point: float) -> bool:
    """Whether autograd itself gets the second derivatives right there, without NaN or overflow."""
    if row.name == "pow":
        return point > 0
    return row.name != "atan" or abs(point) < 1e50


@pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.name)
def test_an_operator_at_zero_ties_the_guard_and_huge_values(row):
    points = [each for each in HARSH if is_fair(row, each)]
    f = torch.tensor(points, dtype=torch.float64)
    for number, expr in enumerate(direct(row)):
        width = weight_count(expr)
        for y in points:
            # Powers of two: weighting is then exact, and a tie stays a tie.
            phi = 2.0 ** (draws(number, len(f), width) * 3 - 1).floor()
            compare_at_points(expr, y, f, phi, draws(1, len(f)), draws(2, len(f), width))


@pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.name)
def test_an_operator_inside_an_expression_at_ordinary_points(row):
    f = torch.tensor(ORDINARY, dtype=torch.float64)
    for expr in composed(row):
        width = weight_count(expr)
        for y in ORDINARY:
            phi = 0.5 + draws(3, len(f), width)
            compare_at_points(expr, y, f, phi, draws(1, len(f)), draws(2, len(f), width))


@pytest.mark.parametrize(
    "row", [row for row in ELEMENTWISE if row.name != "detach"], ids=lambda row: row.name
)
def test_second_derivatives_are_finite_differences_of_gradients(row):
    """No autograd on either side: the kernels' curvature against the kernels' own gradients."""
    step = 1e-5
    for expr in composed(row):
        population = LossPopulation([expr])
        f, y = draws(4, 1, 7, 2) - 0.4, draws(5, 7, 2)
        phi = 0.5 + draws(6, 1, weight_count(expr))
        w, z = draws(7, *f.shape) - 0.5, draws(8, *phi.shape) - 0.5
        ahead = population.values_and_gradients(f + step * w, y, phi + step * z)
        behind = population.values_and_gradients(f - step * w, y, phi - step * z)
        _, by_f, by_phi = population.values_and_gradients(f, y, phi)
        slope = (by_f * w).sum() + (by_phi * z).sum()
        bends = population.curvature(f, y, phi, w, z)
        assert slope.item() == pytest.approx(((ahead[0] - behind[0]) / (2 * step)).item(), rel=1e-6)
        for found, up, down in zip(bends, ahead[1:], behind[1:], strict=True):
            torch.testing.assert_close(found, (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


PARTIAL = ("ln", "root", "log1p", "pow")
EXACT = (
    "add", "sub", "mul", "neg", "square", "abs", "min", "max", "sign", "where", "lt", "gt", "le",
    "ge", "eq", "ne", "relu", "floor", "clamp_min", "clamp_max", "huber", "detach",
)  # fmt: skip


@given(losses(DYADIC, max_leaves=8), st.integers(0, 99))
@settings(max_examples=150)
def test_random_trees_at_ordinary_points(expr, seed):
    # In the kernels, what is not a number within a condition leaves no gradient: none of that here.
    assume(not any(node.op in PARTIAL for node in walk(expr) if isinstance(node, Call)))
    f = draws(seed, 6) * 4 - 2
    width = weight_count(expr)
    phi, w, z = 0.5 + draws(seed + 1, 6, width), draws(seed + 2, 6), draws(seed + 3, 6, width)
    y = 0.7
    calm = steady(expr, y, f, phi, w, z)
    assume(calm.any())
    compare_at_points_loosely(expr, y, *(each[calm] for each in (f, phi, w, z)))


def steady(expr, y, f, phi, w, z):
    """Where the oracle itself does not jump or blow up when its arguments are nudged."""

    def at(f, phi):
        found = derivatives(
            lambda f, phi: element_loss(expr, torch.full_like(f, y), f, phi.unbind(1)), f, phi, w, z
        )
        return torch.cat([each.reshape(len(f), -1) for each in found], 1)

    here = at(f, phi)
    scale = here.abs().amax(1, keepdim=True)
    moved = [at(f * (1 + s * 1e-10), phi * (1 + t * 1e-10)) for s, t in ((1, 0), (-1, 1), (0, -1))]
    still = torch.stack([((here - each).abs() <= 1e-6 * scale).all(1) for each in moved]).all(0)
    return still & here.isfinite().all(1) & (scale[:, 0] < 1e100)


def compare_at_points_loosely(expr, y, f, phi, w, z):
    expected = derivatives(
        lambda f, phi: element_loss(expr, torch.full_like(f, y), f, phi.unbind(1)), f, phi, w, z
    )
    found, only = found_at_points(expr, y, f, phi, w, z)
    for a, b in zip([*found, only], [*expected, expected[1]], strict=True):
        scale = torch.cat([each.reshape(len(f), -1) for each in expected], 1).abs().amax()
        assert ((a - b).abs() <= 1e-5 * b.abs() + 1e-9 * scale).all(), expr


@given(losses(DYADIC, max_leaves=8), st.integers(0, 99))
@settings(max_examples=100)
def test_random_trees_of_exact_operators_at_ties_and_zeros(expr, seed):
    """Nothing rounds here (small multiples of 1/8, powers of two), so equal means equal."""
    assume(all(node.op in EXACT for node in walk(expr) if isinstance(node, Call)))
    f = torch.tensor([0.0, 1.0, 1.0, -1.0, 0.5, -0.25], dtype=torch.float64)
    width = weight_count(expr)
    phi = 2.0 ** (draws(seed, 6, width) * 3 - 1).floor()
    w = (draws(seed + 1, 6) * 8).floor() / 4
    z = (draws(seed + 2, 6, width) * 8).floor() / 4
    for y in (0.0, 1.0):
        expected = derivatives(
            lambda f, phi, y=y: element_loss(expr, torch.full_like(f, y), f, phi.unbind(1)),
            f, phi, w, z,
        )  # fmt: skip
        assume(all(each.abs().max() < 2**20 for each in expected if each.numel()))
        found, only = found_at_points(expr, y, f, phi, w, z)
        for a, b in zip([*found, only], [*expected, expected[1]], strict=True):
            assert torch.equal(a, b.expand_as(a)), expr


LOSSES = [
    parse(text)
    for text in (
        "square(y - f)",
        "tanh(y) * log(f) + 0.25 * sqrt(abs(f * y - 3.0))",
        "aq(f, y) - 2.0 * f",
        "max(f, y) * sigmoid(1.5 * f)",
        "where(f < y, exp(f), softplus(f * y))",
    )
]


def problem(dtype=torch.float64, rows=11, outputs=3, shared=False, weights="edges", seed=0):
    """Predictions, targets, weights, and a direction for LOSSES."""
    population = LossPopulation(LOSSES, weights)
    copies = len(LOSSES)
    f = (draws(seed, 1 if shared else copies, rows, outputs) * 2 - 0.7).to(dtype)
    y = (draws(seed + 1, rows, outputs) * 2 - 0.8).to(dtype)
    phi = population.initial_phi()
    if weights != "none":
        phi = phi * (0.6 + draws(seed + 2, *phi.shape))
    w = (draws(seed + 3, copies, rows, outputs) - 0.5).to(dtype)
    z = draws(seed + 4, *phi.shape) - 0.5
    return population, f, y, phi, w, z


def one_by_one(f, y, phi, w, z, weights="edges"):
    """The oracle's values, gradients and curvatures, padded to a population's shapes."""
    rows = []
    for p, expr in enumerate(LOSSES):
        width = weight_count(expr, weights)
        own = f[p if len(f) > 1 else 0].double()
        found = derivatives(
            lambda f, phi, expr=expr: batch_loss(expr, y.double(), f, phi.unbind(), weights),
            own, phi[p, :width], w[p].double(), z[p, :width],
        )  # fmt: skip
        pad = (0, phi.shape[1] - width)
        for at in (2, 4):
            found[at] = torch.nn.functional.pad(found[at], pad)
        rows.append(found)
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def every_derivative(population, f, y, phi, w, z):
    return [
        *population.values_and_gradients(f, y, phi),
        *population.curvature(f, y, phi, w, z),
        population.gradient(f, y, phi),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["edges", "constants"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [1, 11, 300])  # 300 × 3 elements span several blocks
def test_a_population_over_batches(backend, weights, shared, rows):
    population, f, y, phi, w, z = problem(shared=shared, weights=weights, rows=rows)
    population = LossPopulation(LOSSES, weights, backend)
    found = every_derivative(population, f, y, phi, w, z)
    expected = one_by_one(f, y, phi, w, z, weights)
    for a, b in zip(found, [*expected, expected[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [1, 300])
def test_a_population_without_weights(backend, shared, rows):
    population, f, y, phi, w, _ = problem(shared=shared, weights="none", rows=rows)
    population = LossPopulation(LOSSES, "none", backend)
    expected = one_by_one(f, y, torch.ones(len(LOSSES), 0), w, torch.ones(len(LOSSES), 0), "none")
    value, by_f, _ = population.values_and_gradients(f, y, phi)
    found = (value, by_f, population.curvature(f, y, phi, w)[0], population.gradient(f, y, phi))
    for a, b in zip(found, [expected[at] for at in (0, 1, 3, 1)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@given(losses(DYADIC, max_leaves=8), st.integers(0, 99))
@settings(max_examples=100)
def test_binding_the_weights_changes_no_derivative(expr, seed):
    """A tuned loss is trained with as an ordinary expression, whose factors are taken out."""
    weighted = LossPopulation([expr])
    phi = 2.0 ** (draws(seed, *weighted.initial_phi().shape) * 3 - 1).floor()
    bound = LossPopulation([bind(expr, phi[0].tolist())], "none")
    f = torch.tensor([[[0.0], [1.0], [-1.0], [0.3], [-1.7]]], dtype=torch.float64)
    y, w = torch.ones(5, 1, dtype=torch.float64), torch.ones_like(f)
    own = bound.initial_phi()
    for a, b in (
        (bound.gradient(f, y, own), weighted.gradient(f, y, phi)),
        (bound.curvature(f, y, own, w)[0], weighted.curvature(f, y, phi, w)[0]),
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("shape", [(4, 1), (70, 7), (3, 300)])
def test_gradients_through_the_output_transform(backend, shared, output, shape):
    population = LossPopulation(LOSSES, "edges", backend)
    phi = 0.6 + draws(2, *population.initial_phi().shape)
    raw = draws(0, 1 if shared else len(LOSSES), *shape) * 2 - 1
    y = draws(1, *shape)
    found = population.gradient(raw, y, phi, output)
    for p, expr in enumerate(LOSSES):
        leaf = raw[p if len(raw) > 1 else 0].clone().requires_grad_()
        loss = batch_loss(expr, y, TRANSFORMS[output](leaf), phi[p, : weight_count(expr)])
        (expected,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(found[p], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_of_the_weights_has_no_influence_and_no_gradient(backend):
    population = LossPopulation(LOSSES, "edges", backend)
    _, f, y, phi, w, z = problem()
    widths = torch.tensor([weight_count(expr) for expr in LOSSES])
    padding = torch.arange(phi.shape[1]) >= widths[:, None]
    assert padding.any()
    other = every_derivative(population, f, y, phi.masked_fill(padding, 1e6), w, z)
    for a, b in zip(every_derivative(population, f, y, phi, w, z), other, strict=True):
        assert torch.equal(a, b)
    assert not other[2][padding].any()
    assert not other[4][padding].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shared", [False, True])
def test_single_precision_comes_in_and_goes_out(backend, shared):
    population, f, y, phi, w, z = problem(torch.float32, shared=shared)
    population = LossPopulation(LOSSES, "edges", backend)
    value, by_f, by_phi, bend_f, bend_phi, only = every_derivative(population, f, y, phi, w, z)
    assert {each.dtype for each in (value, by_f, bend_f, only)} == {torch.float32}
    assert {by_phi.dtype, bend_phi.dtype} == {torch.float64}
    expected = one_by_one(f, y, phi, w, z)
    found = (value, by_f, by_phi, bend_f, bend_phi, only)
    # The fused kernels round on the way out only.
    tolerance = 1e-6 if backend == "fused" else 1e-4
    for a, b in zip(found, [*expected, expected[1]], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_without_a_direction_in_the_weights_it_is_zero():
    population, f, y, phi, w, z = problem()
    given_zero = population.curvature(f, y, phi, w, torch.zeros_like(z))
    for a, b in zip(population.curvature(f, y, phi, w), given_zero, strict=True):
        assert torch.equal(a, b)


def test_transposed_views_are_read_like_their_copies():
    population, f, y, phi, w, z = problem()
    views = [each.mT.contiguous().mT for each in (f, y, w)]
    assert not any(view.is_contiguous() for view in views)
    found = every_derivative(population, views[0], views[1], phi, views[2], z)
    for a, b in zip(found, every_derivative(population, f, y, phi, w, z), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("workers", [2, 3, 50])
@pytest.mark.parametrize("output", ["identity", "softmax"])
def test_a_split_over_threads_changes_nothing(monkeypatch, workers, output):
    _, f, y, phi, w, z = problem()
    raw, target = f[0], y.abs()

    def everything():
        population = LossPopulation(LOSSES)  # which is cut in parts when it is made
        return [
            *every_derivative(population, f, y, phi, w, z),
            population.minimise(raw, target, phi, output, 20, 0.01),
        ]

    monkeypatch.setattr(loss_population, "cores", lambda: 1)
    alone = everything()
    calls = []
    monkeypatch.setattr(loss_population, "cores", lambda: workers)
    monkeypatch.setattr(loss_population, "_WORTH_A_THREAD", 0)
    monkeypatch.setattr(
        loss_population, "spread", lambda *work: calls.append(len(work[2]) - 1) or spread(*work)
    )
    for a, b in zip(everything(), alone, strict=True):
        assert torch.equal(a, b)
    # Kernels: values with gradients, curvature, gradient, minimise.
    assert len(calls) == 4
    assert min(calls) > 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shared", [False, True])
def test_values_pass_gradcheck_and_gradgradcheck(backend, shared):
    population, f, y, phi, _, _ = problem(rows=2, outputs=2, shared=shared)
    population = LossPopulation(LOSSES, "edges", backend)
    leaves = (f.requires_grad_(), phi.requires_grad_())

    def function(f, phi):
        return values(population, f, y, phi)

    # A shared prediction is spread over the losses, as unrolled training does with θ.
    assert torch.autograd.gradcheck(function, leaves, check_batched_grad=False)
    assert torch.autograd.gradgradcheck(function, leaves, check_batched_grad=False)


@given(losses(DYADIC, max_leaves=8))
@settings(max_examples=60)
def test_weights_are_numbered_as_bind_numbers_them(expr):
    """The weighted expression has the value of the ordinary one that `bind` prints."""
    population = LossPopulation([expr])
    phi = 0.5 + draws(0, *population.initial_phi().shape)
    f, y = draws(1, 1, 5, 2), draws(2, 5, 2)
    value = population.values_and_gradients(f, y, phi)[0]
    expected = batch_loss(bind(expr, phi[0].tolist()), y, f[0], weights="none")
    assume(expected.isfinite() and expected.abs() < 1e100)
    nudged = batch_loss(bind(expr, phi[0].tolist()), y, f[0] * (1 + 1e-11), weights="none")
    assume(abs(nudged - expected) <= 1e-8 * abs(expected))
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_initial_weights_are_ones_or_the_constants():
    expr = parse("0.25 * square(y - 3.0) + f")
    assert LossPopulation([expr, F], "edges").initial_phi().tolist() == [[1.0] * 7] * 2
    constants = LossPopulation([expr, parse("y * f")], "constants").initial_phi()
    assert constants.tolist() == [[0.25, 3.0], [1.0, 1.0]]
    assert LossPopulation([parse("square(y - f)")], "none").initial_phi().shape == (1, 0)


def test_a_bare_input_is_a_loss():
    population = LossPopulation([F, Y, Const(2.0)])
    f, y = draws(0, 1, 4, 2), draws(1, 4, 2)
    value, by_f, _ = population.values_and_gradients(f, y, population.initial_phi())
    expected = torch.stack([f[0].sum(1).mean(), y.sum(1).mean(), torch.tensor(4.0).double()])
    torch.testing.assert_close(value, expected)
    assert torch.equal(by_f[0], torch.full((4, 2), 0.25, dtype=torch.float64))
    assert not by_f[1:].any()


def adam(expr, phi, raw, target, output, steps, lr):
    """The rejection protocol with torch's own Adam and autograd."""
    free = raw.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        total = batch_loss(expr, target, TRANSFORMS[output](free), phi)
        if total.requires_grad:
            total.backward()
        optimiser.step()
    return free.detach()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("shape", [(4, 1), (5, 3), (70, 7), (3, 300)])
def test_minimise_is_adam_on_free_predictions(backend, output, shape):
    population = LossPopulation(LOSSES, "edges", backend)
    phi = 0.6 + draws(2, *population.initial_phi().shape)
    raw, target = draws(0, *shape) * 2 - 1, draws(1, *shape)
    found = population.minimise(raw, target, phi, output, 25, 0.05)
    for p, expr in enumerate(LOSSES):
        expected = adam(expr, phi[p, : weight_count(expr)], raw, target, output, 25, 0.05)
        torch.testing.assert_close(found[p] - raw, expected - raw, rtol=1e-6, atol=1e-9)
