"""Whole trainings of multilayer perceptrons in compiled code: tuning steps and base trainings.

For small networks the time goes into calling operations, not into computing. Here a loop over
training steps is one call that holds no Python lock: matrix products by BLAS, the losses by the
kernels' blocks, everything else in place. Each copy is computed for itself, so a result does not
depend on which other copies are in the stack or on how many threads share the work.

Two tuples describe what is trained. `net`: sizes (L + 1,) of the input and the layers; where each
layer's weight (out, in) and bias begin in a row of θ, −1 for no bias; activation codes (L,).
`programs`: code, operands, slots, constant, live, start, as in `Programs`.
"""

# Numba compiles these functions: their types are the arrays', not Python's.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

import numpy as np

from evoloss.engine.compiled import blocks, compiled
from evoloss.engine.elementary import exp, tanh
from evoloss.engine.kernels import BLOCK, pull_back, transform

_blocks = blocks()
forward, gradient = _blocks.forward, _blocks.gradient
tangent, backward_tangent = _blocks.tangent, _blocks.backward_tangent

IDENTITY, RELU, TANH, SIGMOID = 0, 1, 2, 3


@compiled
def tune(
    net, output, programs, phi, usual, usual_phi, moment1, moment2, done, meta_lr,
    lr, factor, decay, theta, x, y, rows, held_x, held_y, held_rows, first, last,
):  # fmt: skip
    """Adam steps number done, done + 1, … on φ[p], by one-step hyper-gradients; in place.

    theta: (S, D) fresh weights of each step; rows (S, B), held_rows (S, B'): its minibatches of
    (x, y) and (held_x, held_y). usual, usual_phi: the one program of the task loss. lr, decay: of
    the base network's SGD; factor: its `first_step_factor`. See `unrolled.one_step_hypergradient`.
    """
    classes = net[0][-1]
    losses, reference = _workspace(programs, classes), _workspace(usual, classes)
    hidden, held_hidden = _activations(net, rows.shape[1]), _activations(net, held_rows.shape[1])
    room = max(rows.shape[1], held_rows.shape[1]) * net[0].max()
    a, b = np.empty(room, theta.dtype), np.empty(room, theta.dtype)
    stepped, direction = np.empty_like(theta[0]), np.empty_like(theta[0])
    by_phi = np.empty(phi.shape[1])
    for step in range(len(theta)):
        initial = theta[step]
        inputs, targets = x[rows[step]], y[rows[step]]
        held_inputs, held_targets = held_x[held_rows[step]], held_y[held_rows[step]]
        _forward(net, initial, inputs, hidden)
        raw = hidden[-inputs.shape[0] * classes :].reshape(-1, classes)
        correct1, correct2 = 1.0 - 0.9 ** (done + step + 1), 1.0 - 0.999 ** (done + step + 1)
        for p in range(first, last):
            slope = a[: raw.size].reshape(raw.shape)
            _slope(programs, p, phi[p], raw, targets, output, losses, slope)
            _backward(net, initial, inputs, hidden, a, b, direction)
            for d in range(len(stepped)):
                stepped[d] = initial[d] - lr * factor * (direction[d] + decay * initial[d])
            _forward(net, stepped, held_inputs, held_hidden)
            held_raw = held_hidden[-held_inputs.shape[0] * classes :].reshape(-1, classes)
            slope = a[: held_raw.size].reshape(held_raw.shape)
            _slope(usual, 0, usual_phi[0], held_raw, held_targets, output, reference, slope)
            _backward(net, stepped, held_inputs, held_hidden, a, b, direction)
            _push(net, initial, direction, inputs, hidden, a, b)
            along = a[: raw.size].reshape(raw.shape)
            _mixed(programs, p, phi[p], raw, targets, along, output, losses, by_phi)
            for n in range(phi.shape[1]):
                g = -lr * factor * by_phi[n]
                moment1[p, n] = 0.9 * moment1[p, n] + 0.1 * g
                moment2[p, n] = 0.999 * moment2[p, n] + 0.001 * g * g
                scale = np.sqrt(moment2[p, n] / correct2) + 1e-8
                phi[p, n] -= meta_lr / correct1 * moment1[p, n] / scale


@compiled
def train(
    net, output, programs, phi, lr, momentum, nesterov, decay,
    theta, velocity, x, y, rows, first, last,
):  # fmt: skip
    """One step of SGD of copy p in [first, last) under loss p for each row of rows; in place.

    theta, velocity: (P, D); x: (N, I), y: (N, C); rows: (S, B) row numbers into them.
    """
    classes = net[0][-1]
    losses = _workspace(programs, classes)
    hidden = _activations(net, rows.shape[1])
    room = rows.shape[1] * net[0].max()
    a, b = np.empty(room, theta.dtype), np.empty(room, theta.dtype)
    direction = np.empty_like(theta[0])
    for p in range(first, last):
        weights, speed = theta[p], velocity[p]
        for step in range(len(rows)):
            inputs, targets = x[rows[step]], y[rows[step]]
            _forward(net, weights, inputs, hidden)
            raw = hidden[-inputs.shape[0] * classes :].reshape(-1, classes)
            slope = a[: raw.size].reshape(raw.shape)
            _slope(programs, p, phi[p], raw, targets, output, losses, slope)
            _backward(net, weights, inputs, hidden, a, b, direction)
            for d in range(len(weights)):
                g = direction[d] + decay * weights[d]
                if momentum != 0.0:
                    speed[d] = momentum * speed[d] + g
                    g = g + momentum * speed[d] if nesterov else speed[d]
                weights[d] -= lr * g


@compiled
def _activations(net, rows):
    """Room for every layer's output on so many rows, one layer after the other."""
    return np.empty(rows * net[0][1:].sum(), np.float32)


@compiled
def _forward(net, theta, x, hidden):
    """Fills `hidden` with every layer's output (B, H)."""
    sizes, weight_at, bias_at, activation = net
    rows, at = len(x), 0
    below = x
    for layer in range(len(activation)):
        n, k = sizes[layer + 1], sizes[layer]
        flat = hidden[at : at + rows * n]
        z = flat.reshape(rows, n)
        weight = theta[weight_at[layer] : weight_at[layer] + n * k].reshape(n, k)
        np.dot(below, weight.T, z)
        if bias_at[layer] >= 0:
            bias = theta[bias_at[layer] : bias_at[layer] + n]
            for i in range(rows):
                for j in range(n):
                    z[i, j] += bias[j]
        if activation[layer] == RELU:
            for e in range(len(flat)):
                flat[e] = 0.0 if flat[e] <= 0.0 else flat[e]
        elif activation[layer] == TANH:
            for e in range(len(flat)):
                flat[e] = tanh(np.float64(flat[e]))
        elif activation[layer] == SIGMOID:
            for e in range(len(flat)):
                flat[e] = 1.0 / (1.0 + exp(-np.float64(flat[e])))
        below = z
        at += rows * n


@compiled
def _through_activation(kind, g, h):
    """g times the derivative of the activation, from its value h; in place."""
    if kind == RELU:
        for e in range(len(h)):
            g[e] = 0.0 if h[e] <= 0.0 else g[e]
    elif kind == TANH:
        for e in range(len(h)):
            g[e] *= 1.0 - h[e] * h[e]
    elif kind == SIGMOID:
        for e in range(len(h)):
            g[e] *= h[e] * (1.0 - h[e])


@compiled
def _backward(net, theta, x, hidden, g, other, found):
    """found = the gradient in θ for the gradient in the output, which is the start of g.

    g and other are overwritten.
    """
    sizes, weight_at, bias_at, activation = net
    rows, at = len(x), len(hidden)
    for layer in range(len(activation) - 1, -1, -1):
        n, k = sizes[layer + 1], sizes[layer]
        at -= rows * n
        _through_activation(activation[layer], g[: rows * n], hidden[at : at + rows * n])
        slope = g[: rows * n].reshape(rows, n)
        below = x
        if layer > 0:
            below = hidden[at - rows * k : at].reshape(rows, k)
        by_weight = found[weight_at[layer] : weight_at[layer] + n * k].reshape(n, k)
        np.dot(slope.T, below, by_weight)
        if bias_at[layer] >= 0:
            by_bias = found[bias_at[layer] : bias_at[layer] + n]
            by_bias[:] = 0.0
            for i in range(rows):
                for j in range(n):
                    by_bias[j] += slope[i, j]
        if layer > 0:
            weight = theta[weight_at[layer] : weight_at[layer] + n * k].reshape(n, k)
            np.dot(slope, weight, other[: rows * k].reshape(rows, k))
            g, other = other, g


@compiled
def _push(net, theta, along, x, hidden, a, b):
    """The derivative of the output along a direction in θ, to the start of a; b is overwritten."""
    sizes, weight_at, bias_at, activation = net
    rows, at, layers = len(x), 0, len(activation)
    # So that the last layer writes to a.
    change, moved = (a, b) if layers % 2 == 1 else (b, a)
    extra = np.empty(rows * sizes[1:].max(), theta.dtype)
    below = x
    for layer in range(layers):
        n, k = sizes[layer + 1], sizes[layer]
        flat = change[: rows * n]
        z = flat.reshape(rows, n)
        direction = along[weight_at[layer] : weight_at[layer] + n * k].reshape(n, k)
        np.dot(below, direction.T, z)
        if layer > 0:
            weight = theta[weight_at[layer] : weight_at[layer] + n * k].reshape(n, k)
            more = extra[: rows * n]
            np.dot(moved[: rows * k].reshape(rows, k), weight.T, more.reshape(rows, n))
            for e in range(rows * n):
                flat[e] += more[e]
        if bias_at[layer] >= 0:
            bias = along[bias_at[layer] : bias_at[layer] + n]
            for i in range(rows):
                for j in range(n):
                    z[i, j] += bias[j]
        output = hidden[at : at + rows * n]
        _through_activation(activation[layer], flat, output)
        below = output.reshape(rows, n)
        at += rows * n
        change, moved = moved, change


@compiled
def _workspace(programs, classes):
    """Rows for one block: values, adjoints and their tangents, and six inputs and outputs."""
    start = programs[5]
    longest = 0
    for p in range(len(start) - 1):
        longest = max(longest, start[p + 1] - start[p])
    size = max(1, BLOCK // classes) * classes
    return np.empty((4, longest, size)), np.empty((6, size))


@compiled
def _load(raw, y, at, n, r, t):
    """Rows at … at + n of raw outputs and targets, class by class (see `kernels.minimise`)."""
    classes = raw.shape[1]
    for i in range(n):
        for c in range(classes):
            r[c * n + i] = raw[at + i, c]
            t[c * n + i] = y[at + i, c]


@compiled
def _slope(programs, p, phi, raw, y, output, workspace, out):
    """out = the gradient of loss p, a mean over rows, in the raw outputs (B, C)."""
    code, operands, slots, constant, live, start = programs
    trees, lines = workspace
    V, A = trees[0], trees[1]
    r, t, f, g = lines[0], lines[1], lines[2], lines[3]
    lo, hi = start[p], start[p + 1]
    rows, classes = raw.shape
    scale = 1.0 / rows
    size = lines.shape[1] // classes
    for at in range(0, rows, size):
        n = min(size, rows - at)
        m = n * classes
        _load(raw, y, at, n, r, t)
        transform(r, f, classes, output, n)
        forward(code, operands, slots, constant, lo, hi, phi, t, f, V, m)
        gradient(code, operands, slots, live, lo, hi, phi, V, A, g, m)
        pull_back(f, g, classes, output, n)
        for i in range(n):
            for c in range(classes):
                out[at + i, c] = scale * g[c * n + i]


@compiled
def _mixed(programs, p, phi, raw, y, along, output, workspace, by_phi):
    """by_phi = ∂/∂φ of the gradient of loss p in the raw outputs, times a direction in them."""
    code, operands, slots, constant, _, start = programs
    trees, lines = workspace
    V, A, D, B = trees[0], trees[1], trees[2], trees[3]
    r, t, f, g, w = lines[0], lines[1], lines[2], lines[3], lines[4]
    lo, hi = start[p], start[p + 1]
    rows, classes = raw.shape
    size = lines.shape[1] // classes
    still = np.zeros(len(by_phi))
    by_phi[:] = 0.0
    for at in range(0, rows, size):
        n = min(size, rows - at)
        m = n * classes
        _load(raw, along, at, n, r, w)
        _load(raw, y, at, n, r, t)
        transform(r, f, classes, output, n)
        pull_back(f, w, classes, output, n)  # the transforms' Jacobians are symmetric
        forward(code, operands, slots, constant, lo, hi, phi, t, f, V, m)
        tangent(code, operands, slots, lo, hi, phi, still, w, V, D, m)
        backward_tangent(code, operands, slots, lo, hi, phi, still, V, D, A, B, g, by_phi, m)
    for index in range(len(by_phi)):
        by_phi[index] /= rows
