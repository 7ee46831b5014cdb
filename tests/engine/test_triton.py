"""Triton's kernels against Numba's and against autograd; without a GPU, in Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_kernels import (
    HARSH,
    LOSSES,
    ORDINARY,
    composed,
    direct,
    draws,
    every_derivative,
    is_fair,
    problem,
)
from test_loss_networks import NETS

import evoloss
from evoloss.engine import triton_form
from evoloss.engine.loss_population import LossPopulation, values
from evoloss.lang.ops import ELEMENTWISE, GUARD
from loss_oracle import batch_loss, derivatives, element_loss, weight_count

pytest.importorskip("triton", reason="triton is not installed")
import interpreted

interpreted.prepare_once()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOURCE = str(Path(evoloss.__file__).parents[1])


@pytest.fixture(autouse=True)
def quiet():
    """The interpreter computes in NumPy, which warns of what is not a number."""
    with np.errstate(all="ignore"):
        yield


def by_triton(expressions, f, y, phi, w, z, weights="edges"):
    """Every derivative, made where Triton runs and brought back."""
    population = LossPopulation(expressions, weights, "triton")
    given = [each.to(DEVICE) for each in (f, y, phi, w, z)]
    assert population.form(given[0]) == "triton"
    return [each.cpu() for each in every_derivative(population, *given)]


def close(found, expected, what, rtol=1e-11, scale=0.0):
    """Finite values agree; what is not a number in the one is not one in the other."""
    near = (found - expected).abs() <= rtol * (expected.abs() + scale)
    alike = near | (found == expected) | (~found.isfinite() & ~expected.isfinite())
    assert alike.all(), f"{what}: {found[~alike]} instead of {expected[~alike]}"


def pairs(points):
    """Every prediction with every target, as a batch: (1, M, 1) and (M, 1)."""
    grid = torch.cartesian_prod(*[torch.tensor(points, dtype=torch.float64)] * 2)
    return grid[:, 0].view(1, -1, 1), grid[:, 1].view(-1, 1)


def operator(test):
    return pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.name)(test)


@operator
def test_elements_at_zero_ties_the_guard_and_huge_values(row):
    f, y = pairs([each for each in HARSH if is_fair(row, each)])
    for expr in direct(row):
        width = weight_count(expr)
        # Powers of two: weighting is then exact, and a tie stays a tie.
        phi = 2.0 ** (draws(0, 1, width) * 3 - 1).floor()
        unit = torch.where(f == 0, 1.0, f)
        w, z = unit * draws(1, *f.shape), draws(2, 1, width)
        found = by_triton([expr], f, y, phi, w, z)
        numba = every_derivative(LossPopulation([expr]), f, y, phi, w, z)
        exact = derivatives(
            lambda f, phi, expr=expr: element_loss(expr, y[:, 0], f, phi.unbind(1)),
            f.flatten(), phi.expand(f.numel(), width), w.flatten(), z.expand(f.numel(), width),
        )  # fmt: skip
        slope, bend, only = ((each * unit).flatten() for each in (found[1], found[3], found[5]))
        for name, expected in (("numba", numba[1].flatten()), ("autograd", exact[1] / len(y))):
            expected = expected * unit.flatten()
            close(slope, expected, f"{expr}, slope of {name}", scale=1e-1)
            close(only, expected, f"{expr}, slope alone of {name}", scale=1e-1)
        sizes = (slope.abs() + (exact[2] * phi).abs().amax(1) / len(y)).nan_to_num()
        for name, expected in (("numba", numba[3].flatten()), ("autograd", exact[3] / len(y))):
            expected = expected * unit.flatten()
            close(bend, expected, f"{expr}, bend of {name}", scale=sizes + expected.abs())


@operator
def test_sums_over_a_batch_and_an_operator_among_others(row):
    """Values and the weights' derivatives as well, at ordinary points."""
    f, y = pairs(ORDINARY)
    for expr in composed(row):
        width = weight_count(expr)
        phi, z, w = 0.5 + draws(3, 1, width), draws(4, 1, width), draws(5, *f.shape)
        found = by_triton([expr], f, y, phi, w, z)
        numba = every_derivative(LossPopulation([expr]), f, y, phi, w, z)
        exact = derivatives(
            lambda f, phi, expr=expr: batch_loss(expr, y, f, phi.unbind()), f[0], phi[0], w[0], z[0]
        )
        for a, b, c in zip(found, numba, [*exact, exact[1]], strict=True):
            close(a, b, f"{expr}, numba", scale=b.abs().amax())
            close(a, c.reshape(a.shape), f"{expr}, autograd", scale=b.abs().amax())


@operator
def test_the_weights_derivatives_at_zero_and_at_ties(row):
    f = torch.tensor([0.0, 1.0, -1.0, GUARD], dtype=torch.float64)
    f = f[[is_fair(row, each) for each in f.tolist()]].view(-1, 1, 1)
    y = torch.ones(1, 1, dtype=torch.float64)
    for expr in direct(row):
        width = weight_count(expr)
        phi = 2.0 ** (draws(6, len(f), width) * 3 - 1).floor()
        z, w = draws(7, len(f), width), draws(8, *f.shape)
        found = by_triton([expr] * len(f), f, y, phi, w, z)
        numba = every_derivative(LossPopulation([expr] * len(f)), f, y, phi, w, z)
        exact = derivatives(
            lambda f, phi, expr=expr: element_loss(expr, torch.ones_like(f), f, phi.unbind(1)),
            f.flatten(), phi, w.flatten(), z,
        )  # fmt: skip
        for a, b, c in zip(found, numba, [*exact, exact[1]], strict=True):
            close(a, b, f"{expr}, numba", scale=1e-1)
            close(a, c.reshape(a.shape), f"{expr}, autograd", scale=1e-1)


@pytest.mark.parametrize("weights", ["edges", "constants", "none"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [1, 100])  # 100 × 3 elements span two blocks
def test_a_population(weights, shared, rows):
    _, f, y, phi, w, z = problem(shared=shared, weights=weights, rows=rows)
    if weights == "none":  # φ holds factors then, which the torch form leaves where they are
        z = torch.zeros_like(z)
    found = by_triton(LOSSES, f, y, phi, w, z, weights)
    numba = every_derivative(LossPopulation(LOSSES, weights), f, y, phi, w, z)
    torch_form = every_derivative(LossPopulation(LOSSES, weights, "torch"), f, y, phi, w, z)
    for at, (a, b, c) in enumerate(zip(found, numba, torch_form, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        if weights != "none" or at not in (2, 4):
            torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax"])
def test_gradients_through_the_output_transform_and_what_minimises(output):
    expressions = LOSSES[:2]
    both = LossPopulation(expressions), LossPopulation(expressions, "edges", "triton")
    raw, y = draws(0, 2, 5, 3) * 2 - 1, draws(1, 5, 3)
    phi = both[0].initial_phi()
    here, there = (
        [
            each.gradient(raw.to(place), y.to(place), phi.to(place), output).cpu(),
            each.minimise(raw[0].to(place), y.to(place), phi.to(place), output, 3, 0.05).cpu(),
        ]
        for each, place in zip(both, ("cpu", DEVICE), strict=True)
    )
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_single_precision_comes_in_and_goes_out():
    _, f, y, phi, w, z = problem(torch.float32)
    found = by_triton(LOSSES, f, y, phi, w, z)
    numba = every_derivative(LossPopulation(LOSSES), f, y, phi, w, z)
    for a, b in zip(found, numba, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_values_can_be_differentiated_twice():
    population = LossPopulation(LOSSES[:2], "edges", "triton")
    f, y, phi = draws(0, 2, 2, 1), draws(1, 2, 1), population.initial_phi()
    leaves = (f.to(DEVICE).requires_grad_(), phi.to(DEVICE).requires_grad_())

    def function(f, phi):
        return values(population, f, y.to(DEVICE), phi)

    assert torch.autograd.gradcheck(function, leaves, check_batched_grad=False, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, check_batched_grad=False, fast_mode=True)


# What is chosen


def test_the_cpu_keeps_its_own_kernels():
    assert LossPopulation(LOSSES).form(torch.zeros(1)) == "fused"
    assert LossPopulation(LOSSES, "edges", "torch").form(torch.zeros(1)) == "torch"


class OnGpu:
    """What a tensor tells of where it is, without a GPU."""

    device, is_cuda = torch.device("cuda"), True


def test_a_gpu_has_triton_where_it_is_installed_and_torch_elsewhere(monkeypatch):
    assert LossPopulation(LOSSES).form(OnGpu()) == "triton"
    monkeypatch.setattr(triton_form, "_installed", lambda: False)
    assert LossPopulation(LOSSES).form(OnGpu()) == "torch"


def test_networks_take_the_torch_form():
    assert LossPopulation(NETS, "none", "triton").form(torch.zeros(1, device=DEVICE)) == "torch"


def test_without_the_interpreter_tensors_on_the_cpu_take_the_torch_form():
    script = """
import torch
from evoloss.engine.loss_population import LossPopulation
from evoloss.lang.parse import parse
population = LossPopulation([parse("square(y - f)")], "edges", "triton")
f = torch.ones(1, 2, 1)
assert population.form(f) == "torch"
assert population.values_and_gradients(f, 3 * f[0], population.initial_phi())[0].item() == 4.0
"""
    run_without_interpreter(script)


def run_without_interpreter(script):
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


KERNELS, KINDS = ("gradient", "backward", "curvature"), ("fp32", "fp64")


@pytest.fixture(scope="module")
def compiled():
    """By kernel and kind, what Triton's compiler made of it, or how it failed."""
    return json.loads(run_without_interpreter(COMPILED.format(kernels=KERNELS, kinds=KINDS)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_compile_for_a_gpu(compiled, name, kind):
    """Triton's compiler needs no GPU: it makes PTX for one of them."""
    assert ".visible .entry" in compiled[f"{name} {kind}"]


COMPILED = """
import json
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from evoloss.engine import triton_form

def ptx(name, kind):
    kernel = getattr(triton_form._module(), name)
    integers = ("CODE", "OPERANDS", "SLOTS", "LIVE", "START")
    kinds = {{each: "*fp64" for each in kernel.arg_names}} | dict.fromkeys(integers, "*i64")
    kinds |= dict.fromkeys(("F", "Y", "W"), "*" + kind) | {{"BLOCK": "constexpr"}}
    kinds |= dict.fromkeys(("M", "STRIDE", "N", "WIDTH"), "i32")
    kinds = {{each: kinds[each] for each in kernel.arg_names}}
    text = ASTSource(kernel, signature=kinds, constexprs={{"BLOCK": 256}})
    target = GPUTarget("cuda", 90, 32)
    return compile(text, target=target, options={{"enable_fp_fusion": False}}).asm["ptx"]

made = {{}}
for name in {kernels}:
    for kind in {kinds}:
        try:
            made[name + " " + kind] = ptx(name, kind)
        except Exception as error:
            made[name + " " + kind] = repr(error)
print(json.dumps(made))
"""
