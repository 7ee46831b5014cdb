"""Writes the Numba kernels' inner loops as Python source, one branch per row of the operator table.

The generated module works on one block of m elements of one program. Its functions:

- `forward`: V[k] = value of node k;
- `gradient`: A[k] = ∂(Σ root)/∂V[k], where the prediction reaches; fills g;
- `backward`: the same for every node, with the weights' gradient;
- `tangent`: D[k] = derivative of V[k] along a direction w in the prediction and z in the weights;
- `backward_tangent`: the gradient of Σ D[root] by reverse mode over both passes, which is a
  Hessian-vector product of the loss (Pearlmutter 1994) without a second graph.
"""

from __future__ import annotations

from evoloss.engine import rules
from evoloss.engine.program import CONSTANT, ENTRY, FIRST_OPCODE, PREDICTION, SECTOR, TARGET
from evoloss.engine.rules import Rule, Spelling
from evoloss.lang.ops import ELEMENTWISE, OPERANDS, scalar_source

_HEADER = f'''"""Generated from evoloss's operator table; do not edit."""

from math import atan, cos, erf, expm1, log1p, sin, sqrt

from numpy import floor

from evoloss.engine.compiled import compiled
from evoloss.engine.elementary import exp, log, tanh

TARGET, PREDICTION, CONSTANT, FIRST = {TARGET}, {PREDICTION}, {CONSTANT}, {FIRST_OPCODE}
SECTOR, ENTRY = {SECTOR}, {ENTRY}


@compiled
def sign(x):
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x * 0.0)


@compiled
def minimum(x, y):
    return x if x < y or x != x else y


@compiled
def maximum(x, y):
    return x if x > y or x != x else y


@compiled
def sigmoid(x):
    return 1.0 / (1.0 + exp(-x)) if x >= 0.0 else exp(x) / (1.0 + exp(x))


@compiled
def softplus(x):
    return maximum(x, 0.0) + log1p(exp(-abs(x)))


@compiled
def power(x, y):
    return x**y


@compiled
def detach(x):
    return x


@compiled
def weight(phi, slot):
    return 1.0 if slot < 0 else phi[slot]


@compiled
def sector(y, f, table, at):
    """The number of the sector that (y, f) is in, by bisection of the angles after table[at]."""
    count = int(table[at])
    if y == 0.0 and f == 0.0:
        return count
    share = y / (abs(y) + abs(f))
    angle = 1.0 - share if f >= 0.0 else share - 1.0
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) >> 1
        if table[at + 1 + middle] <= angle:
            low = middle
        else:
            high = middle
    return low
'''

_FORWARD = '''

@compiled
def forward(code, operands, slots, constant, lo, hi, phi, y, f, V, m):
    """Values of every node; returns the sum of the root's."""
    for i in range(lo, hi):
        op = code[i]
        v_ = V[i - lo]
        if op == TARGET:
            for e in range(m):
                v_[e] = y[e]
        elif op == PREDICTION:
            for e in range(m):
                v_[e] = f[e]
        elif op == CONSTANT:
            for e in range(m):
                v_[e] = constant[i]
        elif op == SECTOR:
            y_, f_ = V[operands[i, 0]], V[operands[i, 1]]
            for e in range(m):
                v_[e] = sector(y_[e], f_[e], constant, int(constant[i]))
        elif op == ENTRY:
            k_ = V[operands[i, 0]]
            for e in range(m):
                v_[e] = constant[int(constant[i]) + int(k_[e])]
{branches}
    total = 0.0
    root = V[hi - lo - 1]
    for e in range(m):
        total += root[e]
    return total
'''

_GRADIENT = '''

@compiled
def gradient(code, operands, slots, live, lo, hi, phi, V, A, g, m):
    """Writes the prediction's gradient to g; skips what does not depend on the prediction."""
    for e in range(m):
        A[hi - lo - 1, e] = 1.0
        g[e] = 0.0
    for i in range(hi - 1, lo - 1, -1):
        if not live[i]:
            continue
        op = code[i]
        v_ = V[i - lo]
        a_ = A[i - lo]
        if op == PREDICTION:
            for e in range(m):
                g[e] += a_[e]
{branches}
'''

_BACKWARD = '''

@compiled
def backward(code, operands, slots, lo, hi, phi, V, A, g, gphi, m):
    """Writes the prediction's gradient to g and adds the weights' to gphi."""
    for e in range(m):
        A[hi - lo - 1, e] = 1.0
        g[e] = 0.0
    for i in range(hi - 1, lo - 1, -1):
        op = code[i]
        v_ = V[i - lo]
        a_ = A[i - lo]
        if op == PREDICTION:
            for e in range(m):
                g[e] += a_[e]
{branches}
'''

_TANGENT = '''

@compiled
def tangent(code, operands, slots, lo, hi, phi, z, w, V, D, m):
    """Derivatives of every node along w in the prediction and z in the weights."""
    for i in range(lo, hi):
        op = code[i]
        v_ = V[i - lo]
        d_ = D[i - lo]
        if op == PREDICTION:
            for e in range(m):
                d_[e] = w[e]
        elif op < FIRST:
            for e in range(m):
                d_[e] = 0.0
{branches}
'''

_BACKWARD_TANGENT = '''

@compiled
def backward_tangent(code, operands, slots, lo, hi, phi, z, V, D, A, B, h, hphi, m):
    """Gradient of the root's derivative: writes h, adds to hphi. A: adjoints of V, B: of D."""
    for e in range(m):
        A[hi - lo - 1, e] = 0.0
        B[hi - lo - 1, e] = 1.0
        h[e] = 0.0
    for i in range(hi - 1, lo - 1, -1):
        op = code[i]
        v_ = V[i - lo]
        a_ = A[i - lo]
        b_ = B[i - lo]
        if op == PREDICTION:
            for e in range(m):
                h[e] += a_[e]
{branches}
'''

_SCALAR = Spelling(scalar_source, element="[e]")
"""The rules for one element of the arrays."""


def source() -> str:
    """The text of the generated module."""
    return "".join(
        [
            _HEADER,
            _FORWARD.format(branches=_branches(rules.forward, "V")),
            _GRADIENT.format(branches=_branches(rules.gradient, "VA")),
            _BACKWARD.format(branches=_branches(rules.backward, "VA", sums="gphi")),
            _TANGENT.format(branches=_branches(rules.tangent, "VD", directions=True)),
            _BACKWARD_TANGENT.format(
                branches=_branches(rules.backward_tangent, "VDAB", sums="hphi", directions=True)
            ),
        ]
    )


def _branches(rule: Rule, arrays: str, sums: str = "", directions: bool = False) -> str:
    """One `elif` per operator: its operands' rows of the arrays, then a loop over the elements.

    sums: the array that takes the weights' sums s{x}; directions: whether z{x} is needed.
    """
    lines = []
    for index, row in enumerate(ELEMENTWISE):
        lines.append(f"elif op == {FIRST_OPCODE + index}:  # {row.name}")
        for position, x in enumerate(OPERANDS[: row.arity]):
            slot = f"slots[i, {position}]"
            lines += [f"    {name}{x} = {name}[operands[i, {position}]]" for name in arrays]
            lines.append(f"    w{x} = weight(phi, {slot})")
            lines += [f"    z{x} = 0.0 if {slot} < 0 else z[{slot}]"] * directions
            lines += [f"    s{x} = 0.0"] * bool(sums)
        lines.append("    for e in range(m):")
        lines += [f"        {statement}" for statement in rule(row, _SCALAR)]
        for position, x in enumerate(OPERANDS[: row.arity] if sums else ""):
            lines.append(f"    if slots[i, {position}] >= 0:")
            lines.append(f"        {sums}[slots[i, {position}]] += s{x}")
    return "\n".join(" " * 8 + line for line in lines)
