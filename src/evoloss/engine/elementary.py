"""exp, log and tanh without branches or calls, so that LLVM turns loops over them into SIMD code.

The C library's functions are called once per element, which was half of the kernels' time. Each is
within 4 units in the last place of the true value, and keeps NaN, infinity, signed zero and
overflow. The methods are the textbook ones (Muller 2016, "Elementary Functions"): reduce the
argument to a small interval, sum a series, put the exponent back by its bits.
"""

# Numba compiles these functions: their types are its own, not Python's.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from evoloss.engine.compiled import compiled_exactly

_LOG2_E = 1.0 / math.log(2.0)
# ln 2 in two parts: the high one has so few bits that its product with an exponent is exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LARGEST, _SMALLEST = 709.782712893384, -745.2  # exp overflows above, is zero below
_HALF_SQRT = 0.70710678118654752
_MANTISSA = (1 << 52) - 1
_SUBNORMAL = 2.2250738585072014e-308  # the smallest normal number
_SERIES = [1.0 / math.factorial(n) for n in range(2, 14)]
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = _SERIES


def _bitcast(source: Any, result: Any, result_type: Any) -> Any:
    """A function that reads the 64 bits of one type as another."""

    def typed(typing_context, value):
        return result(source), lambda context, builder, signature, arguments: builder.bitcast(
            arguments[0], result_type
        )

    return intrinsic(typed)


_bits = _bitcast(types.float64, types.int64, ir.IntType(64))
_double = _bitcast(types.int64, types.float64, ir.DoubleType())


@compiled_exactly
def _power_of_two(k):
    """2^k for integers k, given as doubles, from -1022 to 1023."""
    return _double((np.int64(k) + 1023) << 52)


@compiled_exactly
def _reduced(x):
    """k and e^r - 1, where x = k ln 2 + r and |r| ≤ ln 2 / 2."""
    k = np.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    tail = _C9 + r * (_C10 + r * (_C11 + r * (_C12 + r * _C13)))
    middle = _C5 + r * (_C6 + r * (_C7 + r * (_C8 + r * tail)))
    return k, r + r * r * (_C2 + r * (_C3 + r * (_C4 + r * middle)))


@compiled_exactly
def exp(x):
    """e^x."""
    clamped = x if x < _LARGEST else _LARGEST
    clamped = clamped if clamped > _SMALLEST else _SMALLEST
    k, p = _reduced(clamped)
    half = np.floor(0.5 * k)  # in two steps: 2^k alone may not be a normal number
    value = (1.0 + p) * _power_of_two(half) * _power_of_two(k - half)
    value = value if x <= _LARGEST else np.inf
    return value if x == x else x


@compiled_exactly
def log(x):
    """The natural logarithm; -∞ at 0, NaN below."""
    small = x < _SUBNORMAL
    bits = _bits(x * 18014398509481984.0 if small else x)  # 2^54
    exponent = np.float64((bits >> 52) - 1022) - (54.0 if small else 0.0)
    m = _double((bits & _MANTISSA) | (1022 << 52))  # in [1/2, 1)
    low = m < _HALF_SQRT
    m = 2.0 * m if low else m
    exponent = exponent - 1.0 if low else exponent
    # log m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …), written as t - s (t - rest) for the last bits
    t = m - 1.0
    s = t / (2.0 + t)
    q = s * s
    tail = 1.0 / 15 + q * (1.0 / 17 + q * (1.0 / 19 + q * (1.0 / 21)))
    middle = 1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13 + q * tail)))
    rest = 2.0 * q * (1.0 / 3 + q * (1.0 / 5 + q * middle))
    value = exponent * _LN2_HIGH + (t - (s * (t - rest) - exponent * _LN2_LOW))
    value = value if x < np.inf else x
    value = value if x > 0.0 else (-np.inf if x == 0.0 else np.nan)
    return value if x == x else x


@compiled_exactly
def tanh(x):
    """(e^2x - 1) / (e^2x + 1)."""
    magnitude = abs(x)
    doubled = 2.0 * (magnitude if magnitude < 20.0 else 20.0)
    k, p = _reduced(doubled)
    scale = _power_of_two(k)
    t = scale * p + (scale - 1.0)  # e^2|x| - 1
    value = t / (t + 2.0)
    value = value if magnitude < 20.0 else 1.0
    value = -value if x < 0.0 else value
    # Below 2^-27 it is x itself, which also keeps the sign of zero; NaN stays as it is.
    return value if magnitude > 7.450580596923828e-09 else x
