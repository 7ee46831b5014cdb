"""Holds the forms of every operator to each other: NumPy, torch, and the table's derivatives."""

import itertools
import math

import numpy as np
import pytest
import torch

from evoloss.errors import LossError
from evoloss.lang.evaluate import NUMPY, numpy_gradient, numpy_value, table_function, torch_value
from evoloss.lang.expr import Call, Const, Input, call
from evoloss.lang.ops import ELEMENTWISE, GUARD, Operator
from evoloss.lang.parse import parse, parse_expression
from evoloss.lang.types import UNLEARNING

Y, F = Input("y"), Input("f")
BELOW, ABOVE = math.nextafter(GUARD, 0), math.nextafter(GUARD, 1)
POINTS = (
    0.0, 0.3, -0.7, 1.0, -1.0, 2.5, 25.0, -40.0, 40.0, 800.0, -800.0,
    GUARD, -GUARD, BELOW, ABOVE, 1e-30, 1e30, -1e30, 1e100, -1e100,
)  # fmt: skip
NAMES = ("a", "b", "c")

# What the mathematics says, in the standard library: no code is shared with the table.
REFERENCE = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "aq": lambda a, b: a / math.hypot(1.0, b),
    "neg": lambda a: -a,
    "sign": lambda a: (a > 0) - (a < 0),
    "square": lambda a: a**2,
    "abs": math.fabs,
    "log": lambda a: math.log(max(math.fabs(a), 1e-7)),
    "sqrt": lambda a: math.sqrt(max(math.fabs(a), 1e-7)),
    "tanh": math.tanh,
    "min": min,
    "max": max,
    "exp": math.exp,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)) if a > 0 else math.exp(a) / (1 + math.exp(a)),
    "softplus": lambda a: a + math.log1p(math.exp(-a)) if a > 0 else math.log1p(math.exp(a)),
    "ln": math.log,
    "root": math.sqrt,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "pow": math.pow,
    "relu": lambda a: max(a, 0.0),
    "logsigmoid": lambda a: -math.log1p(math.exp(-a)) if a > 0 else a - math.log1p(math.exp(a)),
    "sin": math.sin,
    "cos": math.cos,
    "atan": math.atan,
    "erf": math.erf,
    "floor": lambda a: a // 1,
    "clamp_min": max,
    "clamp_max": min,
    "huber": lambda a, b: a**2 / 2 if abs(a) <= b else b * (abs(a) - b / 2),
    "detach": lambda a: a,
    "lt": lambda a, b: float(a < b),
    "gt": lambda a, b: float(a > b),
    "le": lambda a, b: float(a <= b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "and": lambda a, b: float(a > 0.5 and b > 0.5),
    "or": lambda a, b: float(a > 0.5 or b > 0.5),
    "not": lambda a: float(not a > 0.5),
    "where": lambda a, b, c: b if a > 0.5 else c,
}
POSITIVE = {"ln", "root", "pow"}  # of the first operand
PERIODIC = {"sin", "cos"}


def points(row: Operator) -> list[tuple[float, ...]]:
    """All pairs of the points (so ties too), singles, or a few triples whose first is a mask."""
    if row.name == "where":
        return [(m, b, c) for m in (0.0, 1.0) for b, c in itertools.pairwise(POINTS)]
    found = list(itertools.product(POINTS, repeat=row.arity))
    if row.name == "div":
        return [each for each in found if each[1] != 0]
    if row.name in POSITIVE:  # to the power of 0, autograd's own second derivatives disagree
        return [each for each in found if each[0] > 0 and each[-1] != 0]
    if row.name == "log1p":
        return [each for each in found if each[0] > -1]
    # Where an angle is known to no digit, libraries need not agree.
    return [each for each in found if abs(each[0]) < 1e3] if row.name in PERIODIC else found


def torch_derivatives(row: Operator, where: list[tuple[float, ...]]):
    """Value, first and second partial derivatives by autograd: (N,), {i: (N,)}, {(i, j): (N,)}."""
    columns = torch.tensor(where, dtype=torch.float64).T
    operands = [column.clone().requires_grad_() for column in columns]
    names = NAMES[: row.arity]
    expr = Call(row.name, tuple(Input(name) for name in names))
    value = torch_value(expr, dict(zip(names, operands, strict=True)))
    first, second = {}, {}
    for i in range(row.arity):
        first[i] = partial(value, operands[i])
        for j in range(i, row.arity):
            second[i, j] = partial(first[i], operands[j])
    return value, first, second


def partial(value: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
    if not value.requires_grad:
        return torch.zeros_like(operand)
    (found,) = torch.autograd.grad(value.sum(), operand, create_graph=True, allow_unused=True)
    return torch.zeros_like(operand) if found is None else found + 0.0


def close(actual, expected, label: str) -> None:
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            np.broadcast_to(actual, np.shape(expected)), expected, rtol=1e-9, atol=1e-200,
            err_msg=label,
        )  # fmt: skip


@pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.name)
def test_numpy_and_torch_compute_what_the_mathematics_says(row):
    where = points(row)
    columns = dict(zip(NAMES, np.array(where).T, strict=False))
    expr = Call(row.name, tuple(Input(name) for name in NAMES[: row.arity]))
    expected = []
    for operands in where:
        try:
            expected.append(REFERENCE[row.name](*operands))
        except OverflowError:
            expected.append(math.inf)
    close(numpy_value(expr, columns), expected, "numpy")
    tensors = {name: torch.tensor(column) for name, column in columns.items()}
    close(torch_value(expr, tensors).numpy(), expected, "torch")


@pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.name)
def test_the_partial_derivatives_of_the_table_are_those_of_autograd(row):
    where = points(row)
    columns = np.array(where).T
    value, first, second = torch_derivatives(row, where)
    with np.errstate(all="ignore"):
        for i, text in enumerate(row.first):
            mine = table_function(text, row.arity, NUMPY)(*columns, value.detach().numpy())
            close(mine, first[i].detach().numpy(), f"first partial {i}")
        for pair, theirs in second.items():
            text = row.second.get(pair, "0.0")
            mine = table_function(text, row.arity, NUMPY)(*columns, value.detach().numpy())
            close(mine, theirs.detach().numpy(), f"second partial {pair}")


def test_the_gradient_of_a_tree_is_that_of_autograd():
    expr = parse("where(y < f, log(f) * aq(y, f - 2), max(square(y - f), tanh(f)) / 3) - 2 * y")
    generator = np.random.default_rng(0)
    y, f = generator.normal(size=(2, 50))
    inputs = {"y": torch.tensor(y), "f": torch.tensor(f, requires_grad=True)}
    (expected,) = torch.autograd.grad(torch_value(expr, inputs).sum(), inputs["f"])
    np.testing.assert_allclose(numpy_gradient(expr, {"y": y, "f": f}, "f"), expected, rtol=1e-10)


def test_an_input_that_does_not_occur_has_gradient_zero():
    assert numpy_gradient(Y, {"y": np.ones(3), "f": np.ones(3)}, "f").tolist() == [0, 0, 0]


def test_constants_alone_evaluate_in_both():
    expr = call("add", call("mul", Y, Const(0.0)), call("log", call("div", Const(1), Const(0))))
    inputs = {"y": np.ones(2)}
    assert numpy_value(expr, inputs).tolist() == [math.inf] * 2
    assert torch_value(expr, {"y": torch.ones(2)}).tolist() == [math.inf] * 2


def test_nan_comes_through():
    inputs = {"y": np.array([np.nan]), "f": np.ones(1)}
    expr = parse("log(y - f) + max(y, f) + sqrt(y)")
    assert np.isnan(numpy_value(expr, inputs)).all()
    assert torch_value(expr, {n: torch.tensor(x) for n, x in inputs.items()}).isnan().all()


def test_reductions_have_a_value_but_no_gradient_per_element():
    expr = parse_expression("mean(log_probs_forget) - sum(log_probs_retain)", UNLEARNING)
    inputs = {"log_probs_forget": np.array([-1.0, -3.0]), "log_probs_retain": np.array([-1.0, -5])}
    assert numpy_value(expr, inputs) == 4.0
    assert torch_value(expr, {n: torch.tensor(x) for n, x in inputs.items()}).item() == 4.0
    with pytest.raises(LossError, match="over the batch"):
        numpy_gradient(expr, inputs, "log_probs_forget")


def test_float32_stays_float32():
    inputs = {"y": torch.zeros(2), "f": torch.ones(2)}
    assert torch_value(parse("where(y < f, 0.1, 2) * square(y - f)"), inputs).dtype == torch.float32
