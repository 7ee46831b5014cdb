"""The functions of the operator table's texts for Triton, in double precision.

Triton has no tanh, log1p, expm1, arc tangent or power of its own, and what CUDA's library has of
them is out of reach of Triton's interpreter, with which the kernels are tested where there is no
GPU. So they are made of exp and log here, as in Kahan's notes and Muller 2016, "Elementary
Functions"; each is within a few units in the last place, a power within its exponent's.
"""

# Triton compiles these functions: their types are its own, not Python's.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"

import triton
import triton.language as tl

__all__ = [
    "atan", "detach", "expm1", "log1p", "maximum", "minimum", "power", "sigmoid", "sign",
    "softplus", "tanh",
]  # fmt: skip

_HALF_PI = tl.constexpr(1.5707963267948966)
_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def detach(x):
    return x


@triton.jit
def sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x * 0.0))


@triton.jit
def minimum(x, y):
    return tl.where((x < y) | (x != x), x, y)


@triton.jit
def maximum(x, y):
    return tl.where((x > y) | (x != x), x, y)


@triton.jit
def sigmoid(x):
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0 / (1.0 + small), small / (1.0 + small))


@triton.jit
def softplus(x):
    return maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def log1p(x):
    """The rounding error of 1 + x is taken out by the quotient."""
    u = 1.0 + x
    found = tl.where(u == _INFINITY, u, tl.log(u) * (x / (u - 1.0)))
    return tl.where(u == 1.0, x, found)


@triton.jit
def expm1(x):
    """The rounding error of e^x is taken out by its logarithm."""
    u = tl.exp(x)
    found = tl.where(u == _INFINITY, u, (u - 1.0) * (x / tl.log(u)))
    return tl.where(u == 1.0, x, tl.where(u - 1.0 == -1.0, -1.0, found))


@triton.jit
def tanh(x):
    """(e^2|x| - 1) / (e^2|x| + 1), with the sign of x; past 20 it is 1 to the last bit."""
    t = expm1(2.0 * tl.where(tl.abs(x) > 20.0, 20.0, tl.abs(x)))
    return tl.where(x < 0.0, -t / (t + 2.0), t / (t + 2.0))


@triton.jit
def atan(x):
    """The series, after a reciprocal above 1 and two halvings of the angle."""
    size = tl.abs(x)
    r = tl.where(size > 1.0, 1.0 / size, size)
    r = r / (1.0 + tl.sqrt(1.0 + r * r))
    r = r / (1.0 + tl.sqrt(1.0 + r * r))
    q = r * r  # at most 0.04
    tail = 1.0 / 17.0 - q * (1.0 / 19.0 - q * (1.0 / 21.0 - q * (1.0 / 23.0 - q / 25.0)))
    middle = 1.0 / 9.0 - q * (1.0 / 11.0 - q * (1.0 / 13.0 - q * (1.0 / 15.0 - q * tail)))
    series = 1.0 - q * (1.0 / 3.0 - q * (1.0 / 5.0 - q * (1.0 / 7.0 - q * middle)))
    angle = 4.0 * r * series
    angle = tl.where(size > 1.0, _HALF_PI - angle, angle)
    return tl.where(x < 0.0, -angle, angle)


@triton.jit
def power(x, y):
    """e^(y log |x|), with the sign that an odd power of a negative number has."""
    found = tl.where(y == 0.0, 1.0, tl.exp(y * tl.log(tl.abs(x))))
    odd = tl.floor(0.5 * y) != 0.5 * y
    # Of a negative number no other power is one, nor is its logarithm.
    negative = tl.where(tl.floor(y) == y, tl.where(odd, -found, found), tl.log(x))
    return tl.where(x < 0.0, negative, found)
