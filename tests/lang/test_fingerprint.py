"""Fingerprints of gradients: equal where training is equal, different where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings

from evoloss.lang.canonical import canonical
from evoloss.lang.expr import Call, Const
from evoloss.lang.fingerprint import (
    FLAT,
    direction_fingerprint,
    gradient_fingerprint,
    is_flat,
    probe_gradient,
    probes,
)
from evoloss.lang.parse import parse
from strategies import DYADIC, losses


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("square(y - f)", "y * y - 2 * y * f + square(f)"),
        ("square(y - f)", "square(f - y) + tanh(y) - 7"),
        ("log(square(f) + exp(y))", "log(3 * f * f + 3 * exp(y))"),
        ("square(y - f)", "square(y - f) * (1 + 1e-9)"),
    ],
)
def test_equal_gradients_give_equal_fingerprints(a, b):
    for output in ("identity", "softmax", "sigmoid"):
        found = gradient_fingerprint(parse(a), output)
        assert found == gradient_fingerprint(parse(b), output) is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("square(y - f)", "square(y + f)"),
        ("square(y - f)", "y - square(y - f)"),
        ("abs(y - f)", "square(y - f)"),
        ("square(y - f)", "square(y - f) * 1.01"),
    ],
)
def test_different_gradients_give_different_fingerprints(a, b):
    assert gradient_fingerprint(parse(a), "identity") != gradient_fingerprint(parse(b), "identity")


def test_direction_ignores_a_positive_factor_and_nothing_else():
    loss, scaled, negative = (parse(t.format("square(y - f) + 0.1 * abs(f)")) for t in
                              ("{}", "0.0371 * ({})", "-0.0371 * ({})"))  # fmt: skip
    assert gradient_fingerprint(loss, "identity") != gradient_fingerprint(scaled, "identity")
    assert direction_fingerprint(loss, "identity") == direction_fingerprint(scaled, "identity")
    assert direction_fingerprint(loss, "identity") != direction_fingerprint(negative, "identity")


def test_digits_say_how_close():
    a, b = parse("square(y - f)"), parse("1.0002 * square(y - f)")
    assert gradient_fingerprint(a, "identity", 5) != gradient_fingerprint(b, "identity", 5)
    assert gradient_fingerprint(a, "identity", 1) == gradient_fingerprint(b, "identity", 1)


def test_no_finite_gradient_no_fingerprint():
    for text in ("exp(exp(exp(f * 3))) * y", "y / (f - f)"):
        assert gradient_fingerprint(parse(text), "identity") is None
        assert direction_fingerprint(parse(text), "identity") is None


def test_flat_losses_are_recognised():
    for output in ("identity", "softmax", "sigmoid"):
        loss = parse("sign(y - f) + y + f * 0")
        assert is_flat(loss, output)
        assert gradient_fingerprint(loss, output) == direction_fingerprint(loss, output) == FLAT
        assert not is_flat(parse("square(y - f)"), output)


def test_under_a_softmax_a_constant_gradient_is_none():
    assert is_flat(parse("y + 3 * f"), "softmax")
    assert not is_flat(parse("y + 3 * f"), "sigmoid")


def test_probes_lie_where_targets_and_predictions_lie():
    real, classes = probes("identity"), probes("softmax")
    assert {tuple(np.sign(pair)) for pair in zip(real["y"], real["f"], strict=True)} == {
        (-1, -1), (-1, 1), (1, -1), (1, 1)
    }  # fmt: skip
    assert set(classes["y"]) == {0.0, 1.0}
    assert 0 < classes["f"].min() < 0.05
    assert 0.95 < classes["f"].max() < 1


@given(losses(constants=DYADIC))
@settings(max_examples=100, deadline=None)
def test_a_positive_factor_and_the_canonical_form_change_nothing(expr):
    gradient = probe_gradient(expr, "identity")
    found = direction_fingerprint(expr, "identity")
    assert (found is None) == (not np.isfinite(gradient).all())
    assert found == direction_fingerprint(Call("mul", (Const(4.0), expr)), "identity")
    both = probe_gradient(canonical(expr), "identity"), gradient
    if all(np.isfinite(each).all() for each in both) and np.allclose(*both, rtol=1e-13, atol=0):
        assert gradient_fingerprint(canonical(expr), "identity") == gradient_fingerprint(
            expr, "identity"
        )
