"""The functions of torch that a loss may call, on one-dimensional tensors; most are methods too.

Each takes the builder, then what the function takes. A dimension can only be the one there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from evoloss.lang.expr import Call, Const
from evoloss.lang.reader.build import Builder, simplest
from evoloss.lang.reader.limits import Refusal
from evoloss.lang.reader.values import (
    Items,
    Sorted,
    Tensor,
    Unusable,
    Value,
    is_number,
    printed,
)
from evoloss.lang.types import Type

Handler = Callable[..., Value]


def _unary(op: str) -> Handler:
    return lambda m, input: m.apply(op, input)


def _binary(op: str) -> Handler:
    return lambda m, input, other: simplest(m, op, input, other)


def _scaled_binary(op: str) -> Handler:
    def handler(m: Builder, input: Value, other: Value, alpha: Value = 1) -> Value:
        return simplest(m, op, input, simplest(m, "mul", alpha, other))

    return handler


def only_dimension(dim: Value) -> None:
    """Raises Refusal for any dimension but the first, which is also the last."""
    if isinstance(dim, tuple) and len(dim) == 1:
        dim = dim[0]
    if dim is not None and (isinstance(dim, bool) or dim not in (0, -1)):
        raise Refusal(f"dimension {printed(dim)}: the inputs have one dimension, 0")


def _reduction(op: str) -> Handler:
    def handler(m: Builder, input: Value, dim: Value = None, keepdim: Value = False) -> Value:
        only_dimension(dim)
        tensor = m.tensor(input)
        if tensor.type in (Type.MASK, Type.FLAG) and op != "sum":
            raise Refusal(f"torch has no {op} of a comparison: turn it into a float first")
        tensor = m.number(tensor)
        if tensor.type is Type.SCALAR:
            return m.apply("abs", tensor) if op == "norm" else tensor
        return m.apply(op, tensor)

    return handler


def _logical_reduction(op: str) -> Handler:
    def handler(m: Builder, input: Value, dim: Value = None, keepdim: Value = False) -> Value:
        only_dimension(dim)
        mask = m.mask(input)
        return mask if mask.type is Type.FLAG else m.apply(op, mask)

    return handler


def _extreme(op: str, pairwise: str) -> Handler:
    reduce = _reduction(op)

    def handler(
        m: Builder, input: Value, dim: Value = None, keepdim: Value = False, other: Value = None
    ) -> Value:
        if isinstance(dim, Tensor):
            other, dim = dim, None
        if other is not None:
            return m.apply(pairwise, input, other)
        found = reduce(m, input, dim, keepdim)
        return found if dim is None else Sorted((found, _NO_INDICES))

    return handler


_NO_INDICES = Unusable("positions of elements cannot be computed with: use the values")


def _median(m: Builder, input: Value, dim: Value = None, keepdim: Value = False) -> Value:
    found = _reduction("median")(m, input, dim, keepdim)
    return found if dim is None else Sorted((found, _NO_INDICES))


def _spread(op: str) -> Handler:
    def handler(
        m: Builder,
        input: Value,
        dim: Value = None,
        unbiased: Value = None,
        keepdim: Value = False,
        correction: Value = None,
    ) -> Value:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        only_dimension(dim)
        if correction is None:
            correction = 1 if unbiased is None else int(bool(unbiased))
        if correction not in (0, 1):
            raise Refusal(f"a correction of {printed(correction)}: 0 and 1 are known")
        vector = m.vector(input)
        found = m.apply(op, vector)
        if correction == 0:
            return found
        # n / (n - 1), but 1 for one sequence, where torch has NaN: a branch not taken stays finite.
        n = m.length(vector)
        factor = m.apply("div", n, m.apply("clamp_min", m.apply("sub", n, 1), 1))
        return m.apply("mul", found, m.apply("root", factor) if op == "std" else factor)

    return handler


def _quantile(
    m: Builder,
    input: Value,
    q: Value,
    dim: Value = None,
    keepdim: Value = False,
    interpolation: Value = "linear",
) -> Value:
    only_dimension(dim)
    if interpolation != "linear":
        raise Refusal("quantiles are read with linear interpolation only")
    if is_number(q) and not 0 <= q <= 1:
        raise Refusal(f"quantile {q}: it must lie between 0 and 1")
    return m.apply("quantile", m.vector(input), q)


def _norm(
    m: Builder, input: Value, p: Value = 2, dim: Value = None, keepdim: Value = False
) -> Value:
    p = 2 if p in (None, "fro") else p
    if not is_number(p) or p not in (1, 2):
        raise Refusal("norms are read for p of 1 and 2")
    if p == 2:
        return _reduction("norm")(m, input, dim, keepdim)
    return _reduction("sum")(m, m.apply("abs", input), dim, keepdim)


def softmax(m: Builder, input: Value, dim: Value = None) -> Value:
    only_dimension(dim)
    return m.apply("softmax", m.vector(input))


def log_softmax(m: Builder, input: Value, dim: Value = None) -> Value:
    only_dimension(dim)
    return m.apply("sub", input, m.apply("logsumexp", m.vector(input)))


def clamp(m: Builder, input: Value, min: Value = None, max: Value = None) -> Value:
    if min is None and max is None:
        raise Refusal("clamp needs a bound")
    found = m.number(input)
    if min is not None:
        found = m.apply("clamp_min", found, min)
    return found if max is None else m.apply("clamp_max", found, max)


def _where(m: Builder, condition: Value, input: Value, other: Value) -> Value:
    if isinstance(condition, bool):
        return m.number(input if condition else other)
    tensor = m.tensor(condition)
    if tensor.type not in (Type.MASK, Type.FLAG):
        raise Refusal("where wants a comparison as its condition")
    return m.apply("where", tensor, input, other)


def _sort(
    m: Builder, input: Value, dim: Value = -1, descending: Value = False, stable: Value = False
) -> Value:
    if isinstance(dim, bool):
        dim, descending = -1, dim
    only_dimension(dim)
    return Sorted((_ordered(m, m.vector(input), bool(descending)), _NO_INDICES))


def _ordered(m: Builder, vector: Tensor, descending: bool) -> Tensor:
    if not descending:
        return m.apply("sort", vector)
    return m.apply("neg", m.apply("sort", m.apply("neg", vector)))


def _topk(
    m: Builder,
    input: Value,
    k: Value,
    dim: Value = -1,
    largest: Value = True,
    sorted: Value = True,
) -> Value:
    only_dimension(dim)
    values = _ordered(m, m.vector(input), bool(largest))
    return Sorted((m.apply("head", values, k), _NO_INDICES))


def _cat(m: Builder, tensors: Value, dim: Value = 0) -> Value:
    only_dimension(dim)
    return m.joined(tensors, scalars=False)


def _stack(m: Builder, tensors: Value, dim: Value = 0) -> Value:
    only_dimension(dim)
    return m.joined(tensors, scalars=True)


def _filled(number: float) -> Handler:
    return lambda m, input: m.like(input, number)


def _full(m: Builder, size: Value, fill_value: Value) -> Value:
    """A tensor of a given size: a single number, or one for each element of an input."""
    if isinstance(size, tuple):
        if len(size) > 1:
            raise Refusal("a tensor of two dimensions: the inputs have one")
        if not size:
            return m.tensor(fill_value)
        size = size[0]
    base = m.base_of_length(size)
    if base is not None:
        return m.like(base, fill_value)
    if size == 1:
        return m.tensor(fill_value)
    raise Refusal("a new tensor must have one element, or as many as an input")


def _tensor(m: Builder, data: Value) -> Value:
    if isinstance(data, tuple):
        return m.joined(Items(m.detach(each) for each in data), scalars=True)
    return m.detach(data)


def _arange(m: Builder, start: Value, end: Value = None, step: Value = 1) -> Value:
    """Numbers in steps of one, as many as an input has elements."""
    if step != 1:
        raise Refusal("arange is read in steps of 1")
    if end is None:
        start, end = 0, start
    if is_number(start) and is_number(end):
        return m.joined(Items(range(int(start), min(int(end), int(start) + 1000))), scalars=True)
    base = m.base_of_length(_count(m, start, end))
    if base is None:
        raise Refusal("arange must give as many numbers as an input has elements")
    return m.apply("add", m.apply("position", base), start)


def _count(m: Builder, start: Value, end: Value) -> Value:
    """end - start; n for n + 1 and 1."""
    match end:
        case Tensor(Call("add", (Const(value), length) | (length, Const(value)))):
            if value == start:
                return Tensor(length, Type.SCALAR)
    return m.apply("sub", end, start)


def _linspace(m: Builder, start: Value, end: Value, steps: Value) -> Value:
    base = m.base_of_length(steps)
    if base is None:
        raise Refusal("linspace must give as many numbers as an input has elements")
    step = m.apply("div", m.apply("sub", end, start), m.apply("sub", steps, 1))
    return m.apply("add", m.apply("mul", m.apply("position", base), step), start)


def _masked_fill(m: Builder, input: Value, mask: Value, value: Value) -> Value:
    return m.apply("where", m.mask(mask), value, input)


def _masked_select(m: Builder, input: Value, mask: Value) -> Value:
    return m.apply("select", m.mask(mask), m.vector(input))


def _dot(m: Builder, input: Value, other: Value) -> Value:
    return m.apply("sum", m.apply("mul", m.vector(input), m.vector(other)))


def _lerp(m: Builder, input: Value, end: Value, weight: Value) -> Value:
    return m.apply("add", input, m.apply("mul", weight, m.apply("sub", end, input)))


def _logaddexp(m: Builder, input: Value, other: Value) -> Value:
    return m.apply("add", input, m.apply("softplus", m.apply("sub", other, input)))


def _log_base(base: float) -> Handler:
    return lambda m, input: m.apply("div", m.apply("ln", input), math.log(base))


def _half_exponentials(op: str) -> Handler:
    def handler(m: Builder, input: Value) -> Value:
        both = m.apply(op, m.apply("exp", input), m.apply("exp", m.apply("neg", input)))
        return m.apply("mul", 0.5, both)

    return handler


def _isnan(m: Builder, input: Value) -> Value:
    return m.apply("ne", input, input)


def _logical(op: str) -> Handler:
    return lambda m, input, other: m.apply(op, m.mask(input), m.mask(other))


def exclusive(m: Builder, input: Value, other: Value) -> Value:
    """One of two masks, but not both."""
    a, b = m.mask(input), m.mask(other)
    return m.apply("and", m.apply("or", a, b), m.apply("not", m.apply("and", a, b)))


_SAME_NAME = (
    "abs", "sign", "exp", "log1p", "expm1", "sin", "cos", "tanh", "sigmoid", "relu", "erf", "atan",
    "floor", "square", "neg", "logsigmoid",
)  # fmt: skip

FUNCTIONS: dict[str, Handler] = {
    **{name: _unary(name) for name in _SAME_NAME},
    "absolute": _unary("abs"), "sgn": _unary("sign"), "log": _unary("ln"), "sqrt": _unary("root"),
    "negative": _unary("neg"), "arctan": _unary("atan"), "expit": _unary("sigmoid"),
    "detach": lambda m, input: m.detach(input),
    "reciprocal": lambda m, input: m.apply("div", 1.0, input),
    "rsqrt": lambda m, input: m.apply("div", 1.0, m.apply("root", input)),
    "ceil": lambda m, input: m.apply("neg", m.apply("floor", m.apply("neg", input))),
    "tan": lambda m, input: m.apply("div", m.apply("sin", input), m.apply("cos", input)),
    "sinh": _half_exponentials("sub"), "cosh": _half_exponentials("add"),
    "log2": _log_base(2.0), "log10": _log_base(10.0), "isnan": _isnan,
    "exp2": lambda m, input: m.apply("exp", m.apply("mul", math.log(2.0), input)),
    "logit": lambda m, input: m.apply(
        "ln", m.apply("div", input, m.apply("sub", 1.0, input))
    ),
    "add": _scaled_binary("add"), "sub": _scaled_binary("sub"), "subtract": _scaled_binary("sub"),
    "mul": _binary("mul"), "multiply": _binary("mul"), "div": _binary("div"),
    "divide": _binary("div"), "true_divide": _binary("div"), "maximum": _binary("max"),
    "fmax": _binary("max"), "minimum": _binary("min"), "fmin": _binary("min"),
    "pow": lambda m, input, exponent: simplest(m, "pow", input, exponent),
    "lt": _binary("lt"), "less": _binary("lt"), "gt": _binary("gt"), "greater": _binary("gt"),
    "le": _binary("le"), "less_equal": _binary("le"), "ge": _binary("ge"),
    "greater_equal": _binary("ge"), "eq": _binary("eq"), "ne": _binary("ne"),
    "not_equal": _binary("ne"), "logical_and": _logical("and"), "logical_or": _logical("or"),
    "logical_not": lambda m, input: m.apply("not", m.mask(input)), "logical_xor": exclusive,
    "mean": _reduction("mean"), "sum": _reduction("sum"), "logsumexp": _reduction("logsumexp"),
    "amin": _reduction("amin"), "amax": _reduction("amax"), "median": _median,
    "min": _extreme("amin", "min"), "max": _extreme("amax", "max"),
    "std": _spread("std"), "var": _spread("var"), "quantile": _quantile, "norm": _norm,
    "vector_norm": _norm, "any": _logical_reduction("any"), "all": _logical_reduction("all"),
    "softmax": softmax, "log_softmax": log_softmax,
    "softmin": lambda m, input, dim=None: softmax(m, m.apply("neg", input), dim),
    "clamp": clamp, "clip": clamp, "where": _where, "sort": _sort, "topk": _topk,
    "clamp_min": lambda m, input, min: clamp(m, input, min),
    "clamp_max": lambda m, input, max: clamp(m, input, None, max),
    "cat": _cat, "concat": _cat, "concatenate": _cat, "stack": _stack,
    "zeros_like": _filled(0.0), "ones_like": _filled(1.0),
    "full_like": lambda m, input, fill_value: m.like(input, fill_value),
    "zeros": lambda m, *size: _full(m, _one_size(size), 0.0),
    "ones": lambda m, *size: _full(m, _one_size(size), 1.0),
    "full": _full, "tensor": _tensor, "as_tensor": _tensor, "scalar_tensor": _tensor,
    "arange": _arange, "linspace": _linspace, "masked_fill": _masked_fill,
    "masked_select": _masked_select, "dot": _dot, "inner": _dot, "lerp": _lerp,
    "logaddexp": _logaddexp, "numel": lambda m, input: m.length(input),
    "clone": lambda m, input: m.tensor(input),
}  # fmt: skip
"""The functions by name."""


def _one_size(size: tuple[Value, ...]) -> Value:
    return size[0] if len(size) == 1 and isinstance(size[0], tuple) else size
