"""Numeric fingerprints of a loss's gradient: losses that train alike have the same one.

After the gradient-equivalence check of EvoMAL (Raymond et al. 2023), on fixed probe points instead
of a batch of data, so that a fingerprint says the same in every run.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from evoloss.lang.batch import Array
from evoloss.lang.evaluate import numpy_gradient
from evoloss.lang.expr import Expr
from evoloss.lang.gradient import value_and_gradients
from evoloss.lang.probes import probe_batches
from evoloss.lang.types import SUPERVISED, Output, Signature

FLAT = "flat"
"""The fingerprint of a loss that has no gradient anywhere."""

PROBES = 48
_GOLDEN = (0.7548776662466927, 0.5698402909980532)  # 1/ρ and 1/ρ², ρ³ = ρ + 1
_NOISE = 1e-10  # of the largest gradient: below this, a difference of large terms may be rounding
_OFFSET = 0.3819660112501051  # keeps round numbers away from the edges between two codes


@cache
def probes(output: Output) -> dict[str, Array]:
    """Fixed points (y, f), each (PROBES,), where losses of this kind are compared.

    Both real in (-3, 3) for identity; y in {0, 1} and f in (0, 1) otherwise. They follow the
    additive sequence of the plastic number (Roberts 2018), which fills the square evenly.
    """
    steps = np.arange(1, PROBES + 1)[:, None]
    u, v = ((0.5 + steps * np.array(_GOLDEN)) % 1.0).T
    if output == "identity":
        return {"y": 6.0 * u - 3.0, "f": 6.0 * v - 3.0}
    # Classification losses differ most where the prediction is nearly certain: dense at both ends.
    return {"y": np.where(u < 0.5, 0.0, 1.0), "f": 0.5 - 0.5 * np.cos(np.pi * v)}


def probe_gradient(expr: Expr, output: Output) -> Array:
    """(PROBES,) derivatives of the loss with respect to the prediction at the probe points."""
    return numpy_gradient(expr, probes(output), SUPERVISED.trained[0])


def is_flat(expr: Expr, output: Output) -> bool:
    """Whether the loss cannot train anything: its gradient is zero at every probe point.

    Under a softmax, so is a gradient that is the same everywhere: the outputs always sum to one.
    """
    return _flat(probe_gradient(expr, output), output)


def gradient_fingerprint(expr: Expr, output: Output, digits: int = 3) -> str | None:
    """A key that two losses share if their gradients agree to `digits` significant digits.

    None if a gradient is infinite or NaN; FLAT if there is none. Every gradient is rounded in its
    logarithm to a relative 10^-digits. Gradients that differ by rounding errors alone get the same
    key, for all practical purposes; ones that differ by about 10^-digits may or may not.
    """
    return _fingerprint(probe_gradient(expr, output), output, digits)


def direction_fingerprint(expr: Expr, output: Output, digits: int = 3) -> str | None:
    """`gradient_fingerprint`, but shared by losses whose gradients differ by a positive factor."""
    gradient = probe_gradient(expr, output)
    with np.errstate(all="ignore"):
        return _fingerprint(gradient / np.abs(gradient).max(), output, digits, gradient)


def batch_gradient(expr: Expr, signature: Signature) -> Array:
    """Derivatives of a scalar loss in what is trained, over all probe batches, end to end."""
    found = [value_and_gradients(expr, batch, signature.trained)[1]
             for batch in probe_batches(signature)]  # fmt: skip
    return np.concatenate([gradients[name] for gradients in found for name in signature.trained])


def batch_fingerprint(expr: Expr, signature: Signature, digits: int = 3) -> str | None:
    """`gradient_fingerprint` for a scalar loss of a batch."""
    return _fingerprint(batch_gradient(expr, signature), "identity", digits)


def batch_direction_fingerprint(expr: Expr, signature: Signature, digits: int = 3) -> str | None:
    """`direction_fingerprint` for a scalar loss of a batch."""
    gradient = batch_gradient(expr, signature)
    with np.errstate(all="ignore"):
        return _fingerprint(gradient / np.abs(gradient).max(), "identity", digits, gradient)


def _flat(gradient: Array, output: Output) -> bool:
    if output == "softmax":
        spread = gradient.max() - gradient.min()
        return bool(spread <= _NOISE * np.abs(gradient).max())
    return not gradient.any()


def _fingerprint(
    gradient: Array, output: Output, digits: int, original: Array | None = None
) -> str | None:
    """The key of a gradient; whether it is finite and flat is read off the original one."""
    original = gradient if original is None else original
    if not np.isfinite(original).all():
        return None
    if _flat(original, output):
        return FLAT
    size = np.abs(gradient)
    size = np.where(size <= _NOISE * size.max(), 0.0, size)
    with np.errstate(divide="ignore"):
        code = np.floor(np.log(size) * 10.0**digits + _OFFSET)
    signed = np.stack([np.where(size > 0, code, 0.0), np.where(size > 0, np.sign(gradient), 0.0)])
    return hashlib.blake2b(signed.astype(np.int64).tobytes(), digest_size=12).hexdigest()
