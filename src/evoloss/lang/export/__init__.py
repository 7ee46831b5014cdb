"""Writes losses in other languages, each checked against the original before it is handed out."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from evoloss.errors import UserError
from evoloss.lang.expr import Expr, check
from evoloss.lang.types import SUPERVISED, Output, Signature, Type

__all__ = ["FORMATS", "ExportError", "export", "export_batch"]


class ExportError(RuntimeError):
    """An export that does not compute what the original computes: a defect of evoloss."""


def export(expr: Expr, output: Output, format: str) -> str:
    """The loss as a text in one of FORMATS: a PyTorch file, a formula, sympy code, JSON.

    output: the transform from the network's raw output to the prediction f.
    Raises UserError for an unknown format, LossError for an expression that is not a supervised
    loss, ExportError if the text disagrees with the expression on probe points.
    """
    writer = FORMATS.get(format)
    if writer is None:
        near = difflib.get_close_matches(format, FORMATS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(FORMATS)}"
        raise UserError(f"unknown format '{format}': {hint}")
    return writer(check(expr), output)


def export_batch(expr: Expr, signature: Signature, format: str) -> str:
    """`export` for a scalar loss of a batch, as in unlearning; sympy has no form for one.

    Raises UserError for another format, LossError for an expression that is not a loss of the
    signature, ExportError if the text disagrees with the expression on probe batches.
    """
    check(expr, signature)
    if format == "latex":
        return _latex(expr, "identity")
    if format == "json":
        return _json(expr, "identity", signature)
    if format != "torch":
        raise UserError(f"a loss of a batch has no format '{format}': take torch, latex or json")
    from evoloss.lang.export.batch_source import batch_source, to_function

    _check_function(to_function(expr, signature), expr, signature)
    return batch_source(expr, signature)


def _torch(expr: Expr, output: Output) -> str:
    from evoloss.lang.export.torch_source import to_torch, torch_source

    _check_torch(to_torch(expr, output), expr, output)
    return torch_source(expr, output)


def _latex(expr: Expr, output: Output) -> str:
    from evoloss.lang.export.latex import to_latex

    return to_latex(expr) + "\n"


def _sympy(expr: Expr, output: Output) -> str:
    from evoloss.lang.export.sympy_form import sympy_source

    source = sympy_source(expr)
    _check_sympy(source, expr, output)
    return source


def _json(expr: Expr, output: Output, signature: Signature = SUPERVISED) -> str:
    from evoloss.lang.export.json_form import from_json, to_json

    text = to_json(expr, signature)
    if from_json(text) != expr:
        raise ExportError("the JSON does not read back as the loss")
    return text + "\n"


FORMATS: dict[str, Callable[[Expr, Output], str]] = {
    "torch": _torch,
    "latex": _latex,
    "sympy": _sympy,
    "json": _json,
}
"""The formats by name; a new one is a function here."""


def _check_torch(loss: Any, expr: Expr, output: Output) -> None:
    """Compares the module, value and gradient, with the NumPy form on single predictions."""
    import numpy as np
    import torch

    from evoloss.lang.evaluate import numpy_gradient, numpy_value

    transform: dict[Output, Callable[[Any], Any]] = {
        "identity": lambda raw: raw, "sigmoid": torch.sigmoid, "softmax": lambda r: r.softmax(-1)
    }  # fmt: skip
    generator = np.random.default_rng(0)
    for row in range(16):
        raw = torch.tensor(2.0 * generator.normal(size=(1, 3)), requires_grad=True)
        noise = torch.tensor(2.0 * generator.normal(size=(1, 3)))
        y = noise if output == "identity" else torch.eye(3, dtype=torch.float64)[[row % 3]]
        f = transform[output](raw)
        point = {"y": y.numpy(), "f": f.detach().numpy()}
        value = np.broadcast_to(numpy_value(expr, point), (1, 3)).sum()
        inner = torch.tensor(numpy_gradient(expr, point, "f").copy())
        (gradient,) = torch.autograd.grad(f, raw, inner)
        exported = loss(raw, y) + 0.0 * raw.sum()  # a loss without a gradient has one of zero
        (its_gradient,) = torch.autograd.grad(exported, raw)
        _compare(exported.detach().numpy(), value, "the value of the PyTorch file")
        if np.isfinite(value):
            _compare(its_gradient.numpy(), gradient.numpy(), "the gradient of the PyTorch file")


def _check_function(loss: Callable[..., Any], expr: Expr, signature: Signature) -> None:
    """Compares the function, value and gradients, with the NumPy form on the probe batches."""
    import torch

    from evoloss.lang.gradient import value_and_gradients
    from evoloss.lang.probes import probe_batches

    for batch in probe_batches(signature):
        tensors = {name: torch.tensor(array) for name, array in batch.items()}
        for name, kind in signature.inputs.items():
            if kind is Type.MASK:
                tensors[name] = tensors[name] > 0.5
        trained = [tensors[name].requires_grad_() for name in signature.trained]
        value, gradients = value_and_gradients(expr, batch, signature.trained)
        found = loss(**tensors) + sum(0.0 * tensor.sum() for tensor in trained)
        _compare(found.detach().numpy(), value, "the value of the PyTorch file")
        theirs = torch.autograd.grad(found, trained, materialize_grads=True)
        for name, gradient in zip(signature.trained, theirs, strict=True):
            _compare(gradient.numpy(), gradients[name], "the gradient of the PyTorch file")


def _check_sympy(source: str, expr: Expr, output: Output) -> None:
    """Compares what the text says with the NumPy form on the probe points."""
    import numpy as np
    import sympy

    from evoloss.lang.evaluate import numpy_value
    from evoloss.lang.fingerprint import probes

    namespace: dict[str, Any] = {}
    exec(source, namespace)
    function = sympy.lambdify([namespace["y"], namespace["f"]], namespace["loss"], "math")
    for y, f in zip(*probes(output).values(), strict=True):
        value = numpy_value(expr, {"y": y, "f": f})
        try:
            _compare(np.asarray(function(float(y), float(f))), value, "the value of the sympy text")
        except (OverflowError, ZeroDivisionError, ValueError):
            continue  # Python's numbers raise where NumPy's are infinite or NaN


def _compare(found: Any, expected: Any, what: str) -> None:
    """Raises ExportError where the expected number is finite and the found one is another."""
    import numpy as np

    finite = np.isfinite(expected)
    scale = 1e-9 + np.abs(expected).max(initial=0.0, where=finite)
    with np.errstate(invalid="ignore"):  # infinity minus infinity, where nothing is compared
        close = np.abs(found - expected) <= 1e-6 * scale
    if not np.all(close | ~finite):
        raise ExportError(f"{what} is {found} where the loss has {expected}")
