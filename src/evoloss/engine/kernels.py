"""The compiled kernels over a whole population: value and gradient, curvature, rejection.

Each walks its programs over blocks of elements that stay in cache, computes in double precision
whatever the precision of its inputs, and releases Python's lock, so that halves of a population
can run on two cores. The inner loops are generated (`codegen`).
"""

# Numba compiles these functions: their types are the arrays', not Python's.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

import numpy as np

from evoloss.engine.compiled import blocks, compiled
from evoloss.engine.elementary import exp

_blocks = blocks()
forward, gradient, backward = _blocks.forward, _blocks.gradient, _blocks.backward
tangent, backward_tangent = _blocks.tangent, _blocks.backward_tangent

BLOCK = 256
IDENTITY, SIGMOID, SOFTMAX = 0, 1, 2


@compiled
def gradients(code, operands, slots, constant, live, start, phi, F, Y, scale, G, first, last):
    """G[p] = scale · ∂(Σ loss_p)/∂F[p] for p in [first, last).

    F: predictions, one row for all programs or one row each.
    """
    V, A, y, f, g = _workspace(start, BLOCK)
    for p in range(first, last):
        lo, hi = start[p], start[p + 1]
        row = F[p if len(F) > 1 else 0]
        for at in range(0, len(Y), BLOCK):
            m = min(BLOCK, len(Y) - at)
            for e in range(m):
                y[e] = Y[at + e]
                f[e] = row[at + e]
            forward(code, operands, slots, constant, lo, hi, phi[p], y, f, V, m)
            gradient(code, operands, slots, live, lo, hi, phi[p], V, A, g, m)
            for e in range(m):
                G[p, at + e] = scale * g[e]


@compiled
def values_and_gradients(
    code, operands, slots, constant, start, phi, F, Y, scale, L, G, Gphi, first, last
):
    """L[p], its gradient G[p] in the prediction and Gphi[p] in the weights, times scale."""
    V, A, y, f, g = _workspace(start, BLOCK)
    for p in range(first, last):
        lo, hi = start[p], start[p + 1]
        row = F[p if len(F) > 1 else 0]
        L[p] = 0.0
        for at in range(0, len(Y), BLOCK):
            m = min(BLOCK, len(Y) - at)
            for e in range(m):
                y[e] = Y[at + e]
                f[e] = row[at + e]
            L[p] += scale * forward(code, operands, slots, constant, lo, hi, phi[p], y, f, V, m)
            backward(code, operands, slots, lo, hi, phi[p], V, A, g, Gphi[p], m)
            for e in range(m):
                G[p, at + e] = scale * g[e]
        for n in range(Gphi.shape[1]):
            Gphi[p, n] *= scale


@compiled
def curvature(code, operands, slots, constant, start, phi, F, Y, scale, W, Z, H, Hphi, first, last):
    """The Hessian of L[p] in (F, φ) times the direction (W[p], Z[p]): H[p] and Hphi[p]."""
    V, A, y, f, g = _workspace(start, BLOCK)
    D, B, w = np.empty_like(V), np.empty_like(V), np.empty_like(y)
    for p in range(first, last):
        lo, hi = start[p], start[p + 1]
        row = F[p if len(F) > 1 else 0]
        for at in range(0, len(Y), BLOCK):
            m = min(BLOCK, len(Y) - at)
            for e in range(m):
                y[e] = Y[at + e]
                f[e] = row[at + e]
                w[e] = W[p, at + e]
            forward(code, operands, slots, constant, lo, hi, phi[p], y, f, V, m)
            tangent(code, operands, slots, lo, hi, phi[p], Z[p], w, V, D, m)
            backward_tangent(code, operands, slots, lo, hi, phi[p], Z[p], V, D, A, B, g, Hphi[p], m)
            for e in range(m):
                H[p, at + e] = scale * g[e]
        for n in range(Hphi.shape[1]):
            Hphi[p, n] *= scale


@compiled
def minimise(
    code, operands, slots, constant, live, start, phi, R0, Y, classes, output, steps, lr,
    R, first, last,
):  # fmt: skip
    """Raw predictions R[p] after Adam on the loss itself, each prediction a free parameter.

    R0: (M,) raw starting predictions, rows of `classes` numbers. The loss is a mean over rows
    and Adam moves each number by its own gradient, so rows are independent of each other: all
    steps of one block of rows run while it stays in cache.
    """
    rows = max(1, BLOCK // classes)
    size = rows * classes
    V, A, y, f, g = _workspace(start, size)
    r, first_moment, second_moment = np.empty(size), np.empty(size), np.empty(size)
    scale = classes / len(Y)
    for p in range(first, last):
        lo, hi = start[p], start[p + 1]
        for at in range(0, len(Y), size):
            m = min(size, len(Y) - at)
            n = m // classes
            # Class by class, so that the loops of the softmax run over rows, without gaps.
            for i in range(n):
                for c in range(classes):
                    y[c * n + i] = Y[at + i * classes + c]
                    r[c * n + i] = R0[at + i * classes + c]
            first_moment[:m] = 0.0
            second_moment[:m] = 0.0
            for step in range(1, steps + 1):
                transform(r, f, classes, output, n)
                forward(code, operands, slots, constant, lo, hi, phi[p], y, f, V, m)
                gradient(code, operands, slots, live, lo, hi, phi[p], V, A, g, m)
                pull_back(f, g, classes, output, n)
                correct1 = 1.0 - 0.9**step
                correct2 = 1.0 - 0.999**step
                for e in range(m):
                    slope = scale * g[e]
                    first_moment[e] = 0.9 * first_moment[e] + 0.1 * slope
                    second_moment[e] = 0.999 * second_moment[e] + 0.001 * slope * slope
                    r[e] -= (
                        lr
                        * (first_moment[e] / correct1)
                        / (np.sqrt(second_moment[e] / correct2) + 1e-8)
                    )
            for i in range(n):
                for c in range(classes):
                    R[p, at + i * classes + c] = r[c * n + i]


@compiled
def transform(r, f, classes, output, n):
    """f = the output transform of raw predictions r of n rows, stored class by class."""
    if output == SOFTMAX:
        top, total = np.empty(n), np.zeros(n)
        top[:] = r[:n]
        for c in range(1, classes):
            for i in range(n):
                top[i] = max(top[i], r[c * n + i])
        for c in range(classes):
            for i in range(n):
                f[c * n + i] = exp(r[c * n + i] - top[i])
                total[i] += f[c * n + i]
        for c in range(classes):
            for i in range(n):
                f[c * n + i] /= total[i]
    elif output == SIGMOID:
        for e in range(n * classes):
            f[e] = 1.0 / (1.0 + exp(-r[e]))
    else:
        for e in range(n * classes):
            f[e] = r[e]


@compiled
def pull_back(f, g, classes, output, n):
    """Turns the gradient g in the prediction f into the gradient in the raw prediction."""
    if output == SOFTMAX:
        inner = np.zeros(n)
        for c in range(classes):
            for i in range(n):
                inner[i] += f[c * n + i] * g[c * n + i]
        for c in range(classes):
            for i in range(n):
                g[c * n + i] = f[c * n + i] * (g[c * n + i] - inner[i])
    elif output == SIGMOID:
        for e in range(n * classes):
            g[e] *= f[e] * (1.0 - f[e])


@compiled
def _workspace(start, size):
    """Rows for the values and adjoints of the longest program, and one block of each input."""
    longest = 0
    for p in range(len(start) - 1):
        longest = max(longest, start[p + 1] - start[p])
    V, A = np.empty((longest, size)), np.empty((longest, size))
    return V, A, np.empty(size), np.empty(size), np.empty(size)
