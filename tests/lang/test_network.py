"""A neural network as a loss: its weights read back, and every form computes what it computes."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from evoloss.errors import LossError
from evoloss.lang.canonical import canonical, canonical_text
from evoloss.lang.evaluate import numpy_gradient, numpy_value, torch_value
from evoloss.lang.export import export
from evoloss.lang.export.json_form import from_json, to_json
from evoloss.lang.export.torch_source import to_torch
from evoloss.lang.expr import check, complexity, inputs_of, scaled
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.network import WEIGHTS, Network
from evoloss.lang.parse import ParseError, parse
from evoloss.lang.text import to_text
from evoloss.lang.types import UNLEARNING
from evoloss.lang.weights import bind, constant_count, with_constants
from loss_oracle import sequential


def network(seed=0, size=0.3):
    return Network.of((size * np.random.default_rng(seed).normal(size=WEIGHTS)).tolist())


NET = network()


def points():
    rng = np.random.default_rng(1)
    y, f = rng.normal(size=(2, 40))
    y[:10], y[10:20], f[:2] = 0.0, 1.0, 0.0
    return y, f


def test_it_is_the_module_in_value_and_gradient():
    y, f = points()
    leaf = torch.tensor(f, requires_grad=True)
    value = sequential(NET.weights)(torch.stack([torch.tensor(y), leaf], -1))[:, 0]
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    np.testing.assert_allclose(numpy_value(NET, {"y": y, "f": f}), value.detach(), rtol=1e-12)
    np.testing.assert_allclose(
        numpy_gradient(NET, {"y": y, "f": f}, "f"), slope, rtol=1e-10, atol=1e-14
    )
    again = torch_value(NET, {"y": torch.tensor(y), "f": leaf})
    torch.testing.assert_close(again, value)


def test_the_derivative_in_the_target_is_a_difference():
    y, f = points()
    ahead, behind = (numpy_value(NET, {"y": y + step, "f": f}) for step in (1e-6, -1e-6))
    slope = numpy_gradient(NET, {"y": y, "f": f}, "y")
    smooth = np.abs(y) + np.abs(f) > 0
    np.testing.assert_allclose(slope[smooth], ((ahead - behind) / 2e-6)[smooth], atol=1e-6)


def test_large_outputs_neither_overflow_nor_vanish():
    large = network(2, size=30.0)
    y, f = points()
    expected = sequential(large.weights)(torch.tensor(np.stack([y, f], -1)))[:, 0]
    assert expected.max() > 1e4
    np.testing.assert_allclose(numpy_value(large, {"y": y, "f": f}), expected.detach(), rtol=1e-12)


def test_the_text_reads_back_bit_for_bit():
    for loss in (NET, scaled(NET, 2.5)):
        assert parse(to_text(loss)) == loss
        assert from_json(to_json(loss)) == loss
    assert np.float32(NET.digits).tolist() == list(NET.weights)


def test_for_reading_the_weights_are_left_out_but_not_confused():
    short = to_text(scaled(NET, 2.0), digits=4)
    assert short == f"2*ml3(y, f; 2650 weights, {NET.digest})"
    assert canonical(NET) == NET
    assert canonical_text(NET) != canonical_text(network(1))


def test_the_weights_are_constants():
    loss = scaled(NET, 2.0)
    assert constant_count(loss) == 1 + WEIGHTS
    assert with_constants(loss, [3.0, *network(1).weights]) == scaled(network(1), 3.0)
    assert bind(loss, [2.0, 0.5]) == parse(f"4 * (0.5 * {to_text(NET)})")
    for wrong in (math.nan, math.inf, 1e300):
        with pytest.raises(LossError, match=r"not finite|too large"):
            with_constants(NET, [wrong] * WEIGHTS)


def test_measures():
    assert complexity(NET) == 2650
    assert inputs_of(NET) == {"y", "f"}
    assert check(NET) == NET
    with pytest.raises(LossError, match="unknown input 'y'"):
        check(NET, UNLEARNING)


def test_networks_with_other_gradients_have_other_fingerprints():
    keys = {gradient_fingerprint(network(seed), "identity") for seed in range(5)}
    assert len(keys) == 5
    assert None not in keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ml3(y, f)", r"expected ',', found '\)'"),
        ("ml3(f, y)", "expected 'y', found 'f'"),
        ("ml3(y, f, 2)", "expected the weights of ml3 in quotes"),
        ('ml3(y, f, "")', "0 bytes of weights: ml3 has 2650 of 4 bytes"),
        ('ml3(y, f, "????")', "these are no weights"),
        (f"{to_text(NET)[:-1]} + 1)", r"expected '\)', found '\+'"),
        (to_text(NET)[:-2], "in quotes"),
        ('"abc"', "expected a number"),
    ],
)
def test_what_is_no_network_is_refused(text, message):
    with pytest.raises(ParseError, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 500  # not the weights


def test_infinite_weights_are_refused_in_a_text():
    packed = np.full(WEIGHTS, np.inf, dtype="<f4").tobytes()
    with pytest.raises(LossError, match="not finite"):
        Network(packed)


@pytest.mark.parametrize(
    "weights", [[0.0] * 3, [*NET.weights[:-1], "x"], [*NET.weights[:-1], True]]
)
def test_json_that_is_no_network_is_refused(weights):
    document = {"version": 1, "signature": "supervised", "expression": ["ml3", "y", "f", weights]}
    with pytest.raises(LossError, match="weight"):
        from_json(json.dumps(document))


@pytest.mark.parametrize("format", ["latex", "sympy"])
def test_it_has_no_formula(format):
    with pytest.raises(LossError, match="no formula: export it as torch or json"):
        export(NET, "identity", format)


TRANSFORMS = {"identity": lambda r: r, "sigmoid": torch.sigmoid, "softmax": lambda r: r.softmax(-1)}


@pytest.mark.parametrize("output", TRANSFORMS)
def test_the_module_computes_the_loss(output):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(8, 3, generator=generator).double().requires_grad_()
    y = torch.eye(3).double().repeat(3, 1)[:8]
    loss = 2.0 * sequential(NET.weights)(torch.stack([y, TRANSFORMS[output](raw)], -1))
    expected = loss[..., 0].sum(1).mean()
    found = to_torch(scaled(NET, 2.0), output)(raw, y)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(each, raw)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes)


def test_the_torch_file_stands_alone_and_can_be_scripted(tmp_path):
    two = parse(f"{to_text(NET)} + 0.5*{to_text(network(1))} + {to_text(NET)}")
    text = export(two, "identity", "torch")
    assert max(map(len, text.splitlines())) <= 100
    (tmp_path / "loss.py").write_text(text, encoding="utf-8")
    script = f"""
import sys
sys.modules["evoloss"] = None  # any import of it fails
sys.path.insert(0, {str(tmp_path)!r})
import loss, torch
raw, y = torch.linspace(-2, 2, 12).view(6, 2), torch.ones(6, 2)
module = loss.DiscoveredLoss()
assert not list(module.parameters())
assert torch.equal(torch.jit.script(module)(raw, y), module(raw, y))
print(module(raw.double(), y).item())
"""
    command = [sys.executable, "-I", "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    f = torch.linspace(-2, 2, 12).view(6, 2).double().numpy()
    expected = numpy_value(two, {"y": np.ones((6, 2)), "f": f}).sum(1).mean()
    assert float(done.stdout) == pytest.approx(expected, rel=1e-6)


def test_the_language_still_loads_alone():
    code = (
        "import sys, evoloss.lang.parse, evoloss.lang.weights; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
