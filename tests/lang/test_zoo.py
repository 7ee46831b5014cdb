"""The known losses against torch.nn.functional, or against their papers' formulas."""

import math

import pytest
import torch
from torch.nn import functional

from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.lang.evaluate import torch_value

CLASSES = 5


REGRESSION = {
    "mse": lambda f, y: functional.mse_loss(f, y, reduction="none"),
    "mae": lambda f, y: functional.l1_loss(f, y, reduction="none"),
    "huber": lambda f, y: functional.huber_loss(f, y, reduction="none"),
    "log-cosh": lambda f, y: torch.log(torch.cosh(f - y)),
    "quantile": lambda f, y: 0.5 * torch.abs(f - y),
    "msle": lambda f, y: (torch.log1p(f) - torch.log1p(y)) ** 2,
    "mape": lambda f, y: torch.abs(1 - f / y),
}
CLASSIFICATION = {
    "cross-entropy": lambda f, y: functional.nll_loss(f.log(), y.argmax(1), reduction="none"),
    "binary-cross-entropy": lambda f, y: functional.binary_cross_entropy(
        f, y, reduction="none"
    ).sum(1),
    "brier": lambda f, y: functional.mse_loss(f, y, reduction="none").sum(1),
    "absolute": lambda f, y: 2 - 2 * (y * f).sum(1),
    "focal": lambda f, y: -(((1 - f) ** 2 * f.log())[y > 0]),
    "label-smoothing": lambda f, y: functional.cross_entropy(
        f.log(), y.argmax(1), label_smoothing=0.1, reduction="none"
    ),
    "sparse-label-smoothing": lambda f, y: (
        -(
            (1 - 0.1 + 0.1 / CLASSES) * f[y > 0].log()
            + 0.1 * (CLASSES - 1) / CLASSES * ((1 - f[y > 0]) / (CLASSES - 1)).log()
        )
    ),
    "generalised-cross-entropy": lambda f, y: (1 - f[y > 0] ** 0.7) / 0.7,
    "taylor-cross-entropy": lambda f, y: (1 - f[y > 0]) + (1 - f[y > 0]) ** 2 / 2,
    "poly-cross-entropy": lambda f, y: (
        functional.cross_entropy(f.log(), y, reduction="none") + (1 - f[y > 0])
    ),
    "hinge": lambda f, y: torch.where(y > 0, 2 - 2 * f, 2 * f).sum(1),
    "squared-hinge": lambda f, y: (torch.where(y > 0, 2 - 2 * f, 2 * f) ** 2).sum(1),
}


def constants(name: str) -> dict[str, float]:
    return {"classes": CLASSES} if "classes" in zoo.ZOO[name].constants else {}


def assert_same(name: str, expected, y: torch.Tensor, raw: torch.Tensor, f: torch.Tensor) -> None:
    """The same values, and the same gradients in what the predictions f were computed from."""
    mine = torch_value(zoo.loss(name, **constants(name)), {"y": y, "f": f})
    theirs = expected(f, y)
    if mine.shape != theirs.shape:
        mine = mine.sum(1)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    weights = torch.linspace(1, 2, mine.numel(), dtype=mine.dtype).reshape(mine.shape)
    (actual,) = torch.autograd.grad((mine * weights).sum(), raw, retain_graph=True)
    (wanted,) = torch.autograd.grad((theirs * weights).sum(), raw)
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", zoo.names("regression"))
def test_regression(name):
    generator = torch.Generator().manual_seed(0)
    y, f = 4 * torch.rand(2, 200, dtype=torch.float64, generator=generator) + 0.1
    f.requires_grad_()
    assert_same(name, REGRESSION[name], y, f, f)


@pytest.mark.parametrize("name", zoo.names("classification"))
def test_classification(name):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(64, CLASSES, dtype=torch.float64, generator=generator).requires_grad_()
    y = functional.one_hot(torch.arange(64) % CLASSES).double()
    assert_same(name, CLASSIFICATION[name], y, raw, raw.softmax(1))


def test_constants_change_the_loss():
    f = torch.tensor([0.3], dtype=torch.float64)
    one = {"y": torch.ones_like(f), "f": f}
    assert torch_value(zoo.loss("focal", gamma=3), one).item() == pytest.approx(
        -(0.7**3) * math.log(0.3)
    )
    assert torch_value(zoo.loss("taylor-cross-entropy", order=4), one).item() == pytest.approx(
        0.7 + 0.7**2 / 2 + 0.7**3 / 3 + 0.7**4 / 4
    )
    assert torch_value(zoo.loss("quantile", tau=0.9), one).item() == pytest.approx(0.63)
    assert torch_value(zoo.loss("huber", delta=0.1), one).item() == pytest.approx(0.1 * 0.65)


def test_large_residuals_do_not_overflow_log_cosh():
    y, f = torch.tensor([800.0, -800.0]), torch.zeros(2)
    expected = torch.tensor([800 - math.log(2)] * 2)
    torch.testing.assert_close(torch_value(zoo.loss("log-cosh"), {"y": y, "f": f}), expected)


def test_every_entry_names_its_source():
    assert all(entry.source for entry in zoo.ZOO.values())
    assert set(zoo.names()) == {
        name for kind in ("regression", "classification", "unlearning") for name in zoo.names(kind)
    }


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("cross-entrpy", {}, "did you mean 'cross-entropy'"),
        ("zzz", {}, "known: mse"),
        ("focal", {"gama": 1}, "unknown constant 'gama': the focal loss has gamma"),
        ("mse", {"a": 1}, "the mse loss has no constants"),
        ("label-smoothing", {"classes": 1}, "at least 2 classes"),
        ("sparse-label-smoothing", {"xi": 1.0}, "below 1"),
        ("taylor-cross-entropy", {"order": 1.5}, "whole number"),
    ],
)
def test_mistakes_are_named(name, given, message):
    with pytest.raises(UserError, match=message):
        zoo.loss(name, **given)
