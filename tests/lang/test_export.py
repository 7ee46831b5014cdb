"""Every export computes what its original computes, in value and, for torch, in gradient."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evoloss.errors import LossError, UserError
from evoloss.lang import export as export_package
from evoloss.lang import zoo
from evoloss.lang.evaluate import numpy_value, torch_value
from evoloss.lang.export import ExportError, export
from evoloss.lang.export.json_form import from_json, to_json
from evoloss.lang.export.latex import to_latex
from evoloss.lang.export.sympy_form import sympy_source, to_sympy
from evoloss.lang.export.torch_source import to_torch, torch_source
from evoloss.lang.expr import Call, walk
from evoloss.lang.ops import ELEMENTWISE, Kind
from evoloss.lang.parse import parse, parse_expression
from evoloss.lang.types import UNLEARNING
from strategies import losses

OUTPUTS = {
    "identity": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "softmax": lambda raw: raw.softmax(-1),
}
# Parentheses, and every operator with and without constants among its operands.
OPERATORS = [
    "where(y < f, y, 2) * f",
    "where(y > 0.5, 1, f)",
    "where(1 < 2, y, f) * where(y > f, 1, 2)",
    "where(and(y <= f, or(y == f, not(f != 2))), y, f) * where(y >= f, 1, 2)",
    "y - (f - (1 - y)) * (f - 2) / (y / (f / 3)) - -(y + f) * -2",
]
for row in ELEMENTWISE:
    if row.kind is Kind.ELEMENTWISE:
        one = row.arity == 1
        OPERATORS += [
            f"f + {row.name}(y - 2 * f)" if one else f"{row.name}(f, y) + {row.name}(2, f)"
        ]
        OPERATORS += [f"y * f * {row.name}(1.5)" if one else f"y * f * {row.name}(0.5, 0.25)"]
LOSSES = [
    *map(parse, OPERATORS),
    *map(zoo.loss, [*zoo.names("regression"), *zoo.names("classification")]),
]
MODERATE = st.floats(-8, 8, allow_subnormal=False)


def batch(output: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw outputs (8, 4), the gradient wanted, and targets of the kind the output goes with."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(8, 4, dtype=torch.float64, generator=generator).requires_grad_()
    noise = torch.randn(8, 4, dtype=torch.float64, generator=generator)
    return raw, noise if output == "identity" else torch.eye(4, dtype=torch.float64).repeat(2, 1)


def value_and_gradient(expr, output: str, raw: torch.Tensor, y: torch.Tensor):
    """By definition: sum over outputs, mean over the batch, of the expression at (y, f)."""
    value = torch_value(expr, {"y": y, "f": OUTPUTS[output](raw)}).sum(1).mean()
    return value, torch.autograd.grad(value, raw)[0]


def assert_same_loss(loss, expr, output: str) -> None:
    raw, y = batch(output)
    value, gradient = value_and_gradient(expr, output, raw, y)
    mine = loss(raw, y)
    torch.testing.assert_close(mine, value, equal_nan=True)
    torch.testing.assert_close(torch.autograd.grad(mine, raw)[0], gradient, equal_nan=True)


@pytest.mark.parametrize("expr", LOSSES, ids=str)
def test_every_format_of_every_operator_and_known_loss(expr):
    for output in OUTPUTS:
        assert_same_loss(to_torch(expr, output), expr, output)
        for format in ("torch", "json"):
            assert export(expr, output, format)
    assert export(expr, "sigmoid", "latex")
    if any(isinstance(node, Call) and node.op == "detach" for node in walk(expr)):
        with pytest.raises(LossError, match="sympy has no detach"):
            export(expr, "sigmoid", "sympy")
    else:
        assert export(expr, "sigmoid", "sympy")


@given(losses(constants=MODERATE, max_leaves=8))
@settings(max_examples=60, deadline=None)
def test_random_trees_as_torch_and_json(expr):
    assert_same_loss(to_torch(expr, "identity"), expr, "identity")
    assert from_json(to_json(expr)) == expr


@given(losses())
@settings(max_examples=100, deadline=None)
def test_json_keeps_every_bit_of_every_constant(expr):
    assert from_json(to_json(expr)) == expr


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_torch_file_needs_torch_alone(output, tmp_path):
    """Run in an interpreter without evoloss, which imports nothing but what the file imports."""
    expr = parse("where(y < f, log(f) * aq(y, f), max(sqrt(y - f), softplus(1) - 2)) + tanh(f) / 3")
    (tmp_path / "loss.py").write_text(export(expr, output, "torch"), encoding="utf-8")
    raw, y = batch(output)
    torch.save((raw.detach(), y), tmp_path / "batch.pt")
    script = f"""
import sys
sys.modules["evoloss"] = None  # any import of it fails
sys.path.insert(0, {str(tmp_path)!r})
import loss, torch
raw, y = torch.load({str(tmp_path / "batch.pt")!r})
raw.requires_grad_()
value = loss.DiscoveredLoss()(raw, y)
value.backward()
torch.save((value.detach(), raw.grad), {str(tmp_path / "found.pt")!r})
scripted = torch.jit.script(loss.DiscoveredLoss())
assert torch.equal(scripted(raw, y), value)
"""
    command = [sys.executable, "-I", "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    value, gradient = value_and_gradient(expr, output, raw, y)
    found = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(found, (value.detach(), gradient))


def test_the_torch_file_imports_torch_only_and_brings_the_helpers_it_uses():
    source = torch_source(parse("log(y - f)"), "identity")
    assert re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE) == ["torch", "torch"]
    assert re.findall(r"^def (\w+)", source, re.MULTILINE) == ["log"]
    long = torch_source(parse(" + ".join(["log(y) * square(f - 1)"] * 12)), "softmax")
    assert max(map(len, long.splitlines())) <= 100


def test_softmax_takes_class_indices():
    loss = to_torch(zoo.loss("cross-entropy"), "softmax")
    raw, y = batch("softmax")
    expected = torch.nn.functional.cross_entropy(raw, y.argmax(1))
    torch.testing.assert_close(loss(raw, y.argmax(1)), expected)
    torch.testing.assert_close(loss(raw, y), expected)


@pytest.mark.parametrize("output", ["identity", "sigmoid"])
def test_one_output_takes_flat_targets_and_predictions(output):
    loss = to_torch(parse("square(y - f)"), output)
    raw, y = torch.linspace(-1, 1, 5), torch.tensor([0.0, 1, 1, 0, 1])
    expected = (y - OUTPUTS[output](raw)).square().mean()
    for prediction in (raw, raw[:, None]):
        for target in (y, y[:, None], y.int()):
            torch.testing.assert_close(loss(prediction, target), expected)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("identity", torch.zeros(3, 4)),
        ("identity", torch.zeros(4)),
        ("sigmoid", torch.zeros(12)),
        ("softmax", torch.zeros(4)),
        ("softmax", torch.zeros(3, 4, dtype=torch.int64)),
    ],
)
def test_targets_that_do_not_fit_are_refused(output, target):
    loss = to_torch(parse("square(y - f)"), output)
    with pytest.raises(ValueError, match=r"target of shape \[.*for a prediction of shape \[4, 3\]"):
        loss(torch.zeros(4, 3), target)


def test_sympy_text_reads_back_to_the_last_digit():
    expr = parse("0.1234567890123456789 * square(y - f) + exp(f) * 3 + log(1e-9 * y)")
    namespace = {}
    exec(sympy_source(expr), namespace)
    assert namespace["loss"] == to_sympy(expr)
    point = {"y": np.array(0.3), "f": np.array(-0.2)}
    found = float(namespace["loss"].subs({namespace["y"]: 0.3, namespace["f"]: -0.2}))
    assert found == pytest.approx(float(numpy_value(expr, point)), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("square(y - f)", r"\left(y - f\right)^2"),
        ("square(f)", "f^2"),
        ("y - (f - 1)", r"y - \left(f - 1\right)"),
        ("(y - f) * f", r"\left(y - f\right) \cdot f"),
        ("-y * log(f)", r"-y \cdot \log\left|f\right|"),
        ("-(y + f)", r"-\left(y + f\right)"),
        ("y - -2", r"y - \left(-2\right)"),
        ("--f", r"-\left(-f\right)"),
        ("(y + 1) / (f - 1)", r"\frac{y + 1}{f - 1}"),
        ("aq(y, f)", r"\frac{y}{\sqrt{1 + f^2}}"),
        ("1.23456e-7 * f", r"1.23 \cdot 10^{-7} \cdot f"),
        ("f / 1e-7", r"\frac{f}{10^{-7}}"),
        ("square(1e20)", r"\left(10^{20}\right)^2"),
    ],
)
def test_latex_has_the_parentheses_it_needs(text, latex):
    assert to_latex(parse_expression(text)) == latex


def test_latex_of_long_input_names():
    expr = parse("mean(log_probs_forget)", UNLEARNING)
    assert to_latex(expr) == r"\operatorname{mean}\left(\mathrm{log\_probs\_forget}\right)"


@given(losses())
@settings(max_examples=100, deadline=None)
def test_latex_is_balanced(expr):
    text = to_latex(expr)
    assert text.count(r"\left") == text.count(r"\right")
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[-+] -|--", text)


def test_a_wrong_export_is_not_handed_out(monkeypatch):
    expr, other = parse("square(y - f)"), parse("square(y - f) + 1e-4 * f")
    from evoloss.lang.export import json_form, sympy_form, torch_source

    wrong_torch, wrong_sympy = torch_source.to_torch(other, "identity"), sympy_source(other)
    monkeypatch.setattr(torch_source, "to_torch", lambda *_: wrong_torch)
    monkeypatch.setattr(sympy_form, "sympy_source", lambda _: wrong_sympy)
    monkeypatch.setattr(json_form, "from_json", lambda _: other)
    for format in ("torch", "sympy", "json"):
        with pytest.raises(ExportError):
            export(expr, "identity", format)


def test_a_wrong_gradient_alone_is_noticed():
    detached = torch.nn.Module()
    detached.forward = lambda f, y: ((y - f.detach()) ** 2).sum() + 0 * f.sum()
    with pytest.raises(ExportError, match="gradient"):
        export_package._check_torch(detached, parse("square(y - f)"), "identity")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "not a loss"),
        ('{"version": 9, "expression": "y"}', "version 9"),
        ('{"version": 1, "signature": "x", "expression": "y"}', "unknown signature 'x'"),
        ('["add", "y"]', "not a loss"),
    ],
)
def test_json_that_is_no_loss(text, message):
    with pytest.raises(LossError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (["add", "y"], "takes 2"),
        (["sine", "f"], "unknown operator 'sine'"),
        (["add", "y", "x"], "unknown input 'x'"),
        (["add", "y", True], "no part of an expression"),
        (["add", "y", None], "no part of an expression"),
        (["add", "y", 10**400], "not finite"),
        (["add", "y", 1], "does not use f"),
        ([], "no part of an expression"),
    ],
)
def test_json_with_a_broken_expression(node, message):
    document = {"version": 1, "signature": "supervised", "expression": node}
    with pytest.raises(LossError, match=message):
        from_json(json.dumps(document))


def test_unusable_requests():
    expr = parse("y - f")
    with pytest.raises(UserError, match="did you mean 'latex'"):
        export(expr, "identity", "latx")
    with pytest.raises(UserError, match="cannot name a class"):
        torch_source(expr, "identity", name="my loss")
    with pytest.raises(LossError, match="sympy cannot hold this loss"):
        export(parse("max(y, (0 / f) / (0 / f))"), "identity", "sympy")
    with pytest.raises(LossError, match="does not use f"):
        export(parse_expression("y"), "identity", "torch")
