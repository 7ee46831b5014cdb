"""The activations and losses of torch.nn.functional, with the parameters they have there."""

from __future__ import annotations

import math

from evoloss.lang.reader.build import Builder, simplest
from evoloss.lang.reader.functions import FUNCTIONS, Handler, clamp
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.values import Tensor, Value, is_number, printed
from evoloss.lang.types import Type


def reduced(m: Builder, value: Tensor, reduction: Value) -> Value:
    """The losses of the elements as one number."""
    if reduction == "none" or (reduction in ("mean", "sum") and value.type is Type.SCALAR):
        return value
    if reduction not in ("mean", "sum"):
        raise Refusal(f"reduction {printed(reduction)}: it must be mean, sum or none")
    return m.apply(str(reduction), value)


def _softplus(m: Builder, input: Value, beta: Value = 1, threshold: Value = 20) -> Value:
    # Past the threshold torch's is the line that this comes to within 2e-9.
    return simplest(m, "div", m.apply("softplus", simplest(m, "mul", beta, input)), beta)


def _leaky_relu(m: Builder, input: Value, negative_slope: Value = 0.01) -> Value:
    below = simplest(m, "mul", negative_slope, m.apply("clamp_max", input, 0.0))
    return m.apply("add", m.apply("relu", input), below)


def _elu(m: Builder, input: Value, alpha: Value = 1.0) -> Value:
    below = simplest(m, "mul", alpha, m.apply("expm1", m.apply("clamp_max", input, 0.0)))
    return m.apply("add", m.apply("relu", input), below)


def _celu(m: Builder, input: Value, alpha: Value = 1.0) -> Value:
    scaled = simplest(m, "div", m.apply("clamp_max", input, 0.0), alpha)
    below = simplest(m, "mul", alpha, m.apply("expm1", scaled))
    return m.apply("add", m.apply("relu", input), below)


def _selu(m: Builder, input: Value) -> Value:
    return m.apply("mul", 1.0507009873554805, _elu(m, input, 1.6732632423543772))


def _silu(m: Builder, input: Value) -> Value:
    return m.apply("mul", input, m.apply("sigmoid", input))


def _gelu(m: Builder, input: Value, approximate: Value = "none") -> Value:
    if approximate != "none":
        raise Refusal("gelu is read without approximation")
    normal = m.apply("erf", m.apply("mul", math.sqrt(0.5), input))
    return m.apply("mul", m.apply("mul", 0.5, input), m.apply("add", 1.0, normal))


def _mish(m: Builder, input: Value) -> Value:
    return m.apply("mul", input, m.apply("tanh", m.apply("softplus", input)))


def _softsign(m: Builder, input: Value) -> Value:
    return m.apply("div", input, m.apply("add", 1.0, m.apply("abs", input)))


def _hardtanh(m: Builder, input: Value, min_val: Value = -1.0, max_val: Value = 1.0) -> Value:
    return clamp(m, input, min_val, max_val)


def _mse_loss(m: Builder, input: Value, target: Value, reduction: Value = "mean") -> Value:
    return reduced(m, m.apply("square", m.apply("sub", input, target)), reduction)


def _l1_loss(m: Builder, input: Value, target: Value, reduction: Value = "mean") -> Value:
    return reduced(m, m.apply("abs", m.apply("sub", input, target)), reduction)


def _huber_loss(
    m: Builder, input: Value, target: Value, reduction: Value = "mean", delta: Value = 1.0
) -> Value:
    return reduced(m, m.apply("huber", m.apply("sub", input, target), delta), reduction)


def _smooth_l1_loss(
    m: Builder, input: Value, target: Value, reduction: Value = "mean", beta: Value = 1.0
) -> Value:
    if not is_number(beta) or beta < 0:
        raise Refusal("smooth_l1_loss wants a beta of at least 0")
    if beta == 0:
        return _l1_loss(m, input, target, reduction)
    loss = m.apply("huber", m.apply("sub", input, target), beta)
    return reduced(m, simplest(m, "div", loss, beta), reduction)


def _kl_div(
    m: Builder, input: Value, target: Value, reduction: Value = "mean", log_target: Value = False
) -> Value:
    if log_target:
        loss = m.apply("mul", m.apply("exp", target), m.apply("sub", target, input))
    else:  # torch's xlogy is 0 where the target is 0
        entropy = m.apply("mul", target, m.apply("log", target))
        loss = m.apply("sub", entropy, m.apply("mul", target, input))
    if reduction == "batchmean":
        reduction = "mean"
    return reduced(m, loss, reduction)


def _binary_cross_entropy(
    m: Builder, input: Value, target: Value, reduction: Value = "mean"
) -> Value:
    hit = clamp(m, m.apply("ln", input), -100.0)
    miss = clamp(m, m.apply("log1p", m.apply("neg", input)), -100.0)
    return reduced(m, m.apply("neg", _mixed(m, target, hit, miss)), reduction)


def _binary_cross_entropy_with_logits(
    m: Builder, input: Value, target: Value, reduction: Value = "mean"
) -> Value:
    loss = m.apply("sub", m.apply("softplus", input), m.apply("mul", target, input))
    return reduced(m, loss, reduction)


def _mixed(m: Builder, share: Value, one: Tensor, other: Tensor) -> Tensor:
    """share · one + (1 - share) · other."""
    rest = m.apply("mul", m.apply("sub", 1.0, share), other)
    return m.apply("add", m.apply("mul", share, one), rest)


def _margin_ranking_loss(
    m: Builder,
    input1: Value,
    input2: Value,
    target: Value,
    margin: Value = 0.0,
    reduction: Value = "mean",
) -> Value:
    gap = m.apply("mul", m.apply("neg", target), m.apply("sub", input1, input2))
    return reduced(m, clamp(m, m.apply("add", gap, margin), 0.0), reduction)


def _soft_margin_loss(m: Builder, input: Value, target: Value, reduction: Value = "mean") -> Value:
    loss = m.apply("softplus", m.apply("neg", m.apply("mul", target, input)))
    return reduced(m, loss, reduction)


FUNCTIONAL: dict[str, Handler] = {
    **FUNCTIONS,
    "softplus": _softplus, "leaky_relu": _leaky_relu, "elu": _elu, "celu": _celu, "selu": _selu,
    "silu": _silu, "gelu": _gelu, "mish": _mish, "softsign": _softsign, "hardtanh": _hardtanh,
    "relu6": lambda m, input: clamp(m, input, 0.0, 6.0),
    "tanhshrink": lambda m, input: m.apply("sub", input, m.apply("tanh", input)),
    "mse_loss": _mse_loss, "l1_loss": _l1_loss, "huber_loss": _huber_loss,
    "smooth_l1_loss": _smooth_l1_loss, "kl_div": _kl_div,
    "binary_cross_entropy": _binary_cross_entropy,
    "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
    "margin_ranking_loss": _margin_ranking_loss, "soft_margin_loss": _soft_margin_loss,
}  # fmt: skip
"""Everything that can be called under torch and torch.nn.functional, by name."""
