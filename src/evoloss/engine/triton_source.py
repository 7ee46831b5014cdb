"""Writes the Triton kernels that walk a population's programs, one branch a row of the table.

The statements at an operator are the same that the Numba kernels have (`rules`); here they act on a
whole block of elements. A kernel's first axis is the programs, the second the blocks. As with
Numba the programs are data: whatever losses a search comes to, the kernels are compiled once.

What a node leaves for others (V, its value; D, the derivative along the direction; A and B, their
adjoints) lies in memory, a row of M' elements a node, M' being whole blocks. Sums over a block are
written out one by one and added up later, so that their order is fixed.
"""

from __future__ import annotations

import re

import numpy as np

from evoloss.engine import rules
from evoloss.engine.program import CONSTANT, FIRST_OPCODE, PREDICTION, TARGET
from evoloss.engine.rules import Rule, Spelling
from evoloss.lang.ops import ELEMENTWISE, OPERANDS, SCALAR_FUNCTIONS, Operator

_NATIVE = ("abs", "sqrt", "exp", "log", "sin", "cos", "erf", "floor", "where")
"""What Triton has of the functions of the table's texts; `triton_functions` has the others."""
_OWN = tuple(name for name in SCALAR_FUNCTIONS if name not in _NATIVE)
_CALL = re.compile(rf"\b({'|'.join(_NATIVE)})\(")
_NUMBER = re.compile(r"\b\d+\.\d+(?:e-?\d+)?\b|\b\d+e-?\d+\b")


def _text(text: str) -> str:
    """A text of the table in Triton: the same, but for where functions and numbers are found."""
    return _CALL.sub(r"tl.\1(", _NUMBER.sub(_number, text))


def _number(found: re.Match[str]) -> str:
    """A number with all its digits: Triton may compare with one rounded to single precision."""
    exact = float(np.float32(found[0])) == float(found[0])
    return found[0] if exact else f"tl.full((), {found[0]}, tl.float64)"


_BLOCKS = Spelling(_text)
"""The rules for a block as a whole."""

_HEADER = f'''"""Generated from evoloss's operator table; do not edit."""

import triton
import triton.language as tl

from evoloss.engine.triton_functions import {", ".join(_OWN)}


@triton.jit
def weight(phi, slot):
    return tl.load(phi + slot, mask=slot >= 0, other=1.0)


@triton.jit
def direction(along, slot):
    return tl.load(along + slot, mask=slot >= 0, other=0.0)


@triton.jit
def row(ROWS, operand, lo, WIDTH, e):
    """The row of an operand; zeros for one that is not there, which is −1."""
    found = tl.zeros_like(e).to(tl.float64)
    if operand >= 0:
        found = tl.load(ROWS + (lo + operand) * WIDTH + e)
    return found


@triton.jit
def leave(ROWS, operand, lo, WIDTH, e, values):
    if operand >= 0:
        tl.store(ROWS + (lo + operand) * WIDTH + e, values)


@triton.jit
def add_up(sums, slot, values, inside):
    if slot >= 0:
        tl.store(sums + slot, tl.sum(tl.where(inside, values, 0.0)))
'''

_ARGUMENTS = "CODE, OPERANDS, SLOTS, LIVE, CONSTANT, START, F, Y, PHI, M, STRIDE, N, WIDTH, V"

_BEGIN = """
    p = tl.program_id(0)
    lo = tl.load(START + p)
    hi = tl.load(START + p + 1)
    part = p * tl.num_programs(1) + tl.program_id(1)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = e < M
    zero = tl.zeros((BLOCK,), tl.float64)
    phi = PHI + p * N
    y = tl.load(Y + e, mask=inside, other=0.0).to(tl.float64)
    f = tl.load(F + p * STRIDE + e, mask=inside, other=0.0).to(tl.float64)
    for i in range(lo, hi):
        code = tl.load(CODE + i)
        if code == {TARGET}:
            v_ = y
        elif code == {PREDICTION}:
            v_ = f
        elif code == {CONSTANT}:
            v_ = zero + tl.load(CONSTANT + i)
        else:
{operands}
{values}
        tl.store(V + i * WIDTH + e, v_)
        tl.debug_barrier()  # a thread may read what another wrote
"""

_TANGENT = """
    w = tl.load(W + p * M + e, mask=inside, other=0.0).to(tl.float64)
    for i in range(lo, hi):
        code = tl.load(CODE + i)
        if code == {PREDICTION}:
            d_ = w
        elif code < {FIRST}:
            d_ = zero
        else:
            v_ = tl.load(V + i * WIDTH + e)
{operands}
{values}
        tl.store(D + i * WIDTH + e, d_)
        tl.debug_barrier()
"""

_BACKWARDS = """
    g = zero
{seeds}
    tl.debug_barrier()
    for k in range(0, hi - lo):
        i = hi - 1 - k
        code = tl.load(CODE + i)
        {condition}:
            a_ = tl.load(A + i * WIDTH + e)
            if code == {PREDICTION}:
                g = g + a_
            elif code >= {FIRST}:
                v_ = tl.load(V + i * WIDTH + e)
{load}
{operands}
{values}
{leave}
                tl.debug_barrier()
    tl.store(G + p * M + e, g, mask=inside)
"""

_KERNELS = '''

@triton.jit
def gradient({arguments}, A, G, BLOCK: tl.constexpr):
    """The prediction's gradient G."""{forward}{gradient}

@triton.jit
def backward({arguments}, A, L, G, S, BLOCK: tl.constexpr):
    """The prediction's gradient G; each block's sums: L of the root, S for the weights."""{forward}
    root = tl.load(V + (hi - 1) * WIDTH + e)
    tl.store(L + part, tl.sum(tl.where(inside, root, 0.0)))
    sums = S + part * N{backward}

@triton.jit
def curvature({arguments}, A, W, Z, D, B, G, S, BLOCK: tl.constexpr):
    """The Hessian times (W, Z): G in the prediction, S each block's sums for weights."""{forward}
    along = Z + p * N
    sums = S + part * N{tangent}{backward_tangent}'''


def source() -> str:
    """The text of the module with the kernels."""
    passes = {
        "forward": (rules.forward, "V", "v_"),
        "gradient": (rules.gradient, "V", "A"),
        "backward": (rules.backward, "V", "As"),
        "tangent": (rules.tangent, "VD", "d_"),
        "backward_tangent": (rules.backward_tangent, "VD", "ABs"),
    }
    functions = [
        _function(name, rule, row, reads, gives)
        for name, (rule, reads, gives) in passes.items()
        for row in ELEMENTWISE
    ]
    return "".join([_HEADER, *functions, _kernels()])


def _function(name: str, rule: Rule, row: Operator, reads: str, gives: str) -> str:
    """One operator in one pass, as a function: its names are then its own."""
    used = OPERANDS[: row.arity]
    lines = [f"s{x} = 0.0" for x in used if "s" in gives]
    lines += rule(row, _BLOCKS)
    if gives in ("v_", "d_"):
        value = f"{gives}.to(tl.float64)" if gives == "v_" else gives
        lines.append(f"return tl.zeros_like(Va) + {value}")
    else:
        lines.append("none = tl.zeros_like(Va)")
        given = [f"none + {n}{x}" if x in used else "none" for n in gives for x in OPERANDS]
        lines.append(f"return {', '.join(given)}")
    body = "\n".join(f"    {line}" for line in lines)
    return f"\n\n@triton.jit\ndef {name}_{row.name}({_parameters(reads, gives)}):\n{body}\n"


def _parameters(reads: str, gives: str) -> str:
    names = [f"{n}{x}" for n in (*reads, "w", *("z" if "D" in reads else "")) for x in OPERANDS]
    nodes = {"v_": [], "d_": ["v_"], "A": ["v_", "a_"], "As": ["v_", "a_"]}
    return ", ".join([*names, *nodes.get(gives, ["v_", "a_", "b_"])])


def _kernels() -> str:
    forward = _BEGIN.format(
        TARGET=TARGET, PREDICTION=PREDICTION, CONSTANT=CONSTANT,
        operands=_operands("V", 12), values=_tree("v_", "forward", "V", "v_", 12),
    )  # fmt: skip
    tangent = _TANGENT.format(
        PREDICTION=PREDICTION, FIRST=FIRST_OPCODE,
        operands=_operands("VD", 12), values=_tree("d_", "tangent", "VD", "d_", 12),
    )  # fmt: skip
    return _KERNELS.format(
        arguments=_ARGUMENTS,
        forward=forward.rstrip(),
        tangent=tangent.rstrip(),
        gradient=_backwards("gradient", "V", "A", "if tl.load(LIVE + i) != 0"),
        backward=_backwards("backward", "V", "As"),
        backward_tangent=_backwards("backward_tangent", "VD", "ABs"),
    )


def _backwards(name: str, reads: str, gives: str, condition: str = "if True") -> str:
    """The pass from the root down. gives: adjoints A (and B), and s, the sums for the weights."""
    adjoints = gives.rstrip("s")
    targets = ", ".join(f"{n}{x}" for n in gives for x in OPERANDS)
    seeds = {"A": "zero", "B": "zero + 1.0"} if "B" in adjoints else {"A": "zero + 1.0"}
    leave = [f"leave({n}, {x}_at, lo, WIDTH, e, {n}{x})" for n in adjoints for x in OPERANDS]
    if "s" in gives:
        leave += [f"add_up(sums, {x}_slot, s{x}, inside)" for x in OPERANDS]
    return _BACKWARDS.format(
        PREDICTION=PREDICTION, FIRST=FIRST_OPCODE, condition=condition,
        seeds="\n".join(
            f"    tl.store({n} + (hi - 1) * WIDTH + e, {seed})" for n, seed in seeds.items()
        ),
        load="                b_ = tl.load(B + i * WIDTH + e)" if "B" in adjoints else "",
        operands=_operands(reads, 16),
        values=_tree(targets, name, reads, gives, 16),
        leave="\n".join(" " * 16 + line for line in leave),
    ).rstrip() + "\n"  # fmt: skip


def _operands(reads: str, indent: int) -> str:
    """The operands' places and slots, their rows and weights."""
    lines = []
    for position, x in enumerate(OPERANDS):
        lines.append(f"{x}_at = tl.load(OPERANDS + 3 * i + {position})")
        lines.append(f"{x}_slot = tl.load(SLOTS + 3 * i + {position})")
        lines += [f"{n}{x} = row({n}, {x}_at, lo, WIDTH, e)" for n in reads]
        lines.append(f"w{x} = weight(phi, {x}_slot)")
        lines += [f"z{x} = direction(along, {x}_slot)"] * ("D" in reads)
    return "\n".join(" " * indent + line for line in lines)


def _tree(targets: str, name: str, reads: str, gives: str, indent: int) -> str:
    """The call for the operator of a code, found by bisection."""

    def lines(rows: list[int]) -> list[str]:
        if len(rows) == 1:
            call = f"{name}_{ELEMENTWISE[rows[0]].name}({_parameters(reads, gives)})"
            return [f"{targets} = {call}"]
        half = len(rows) // 2
        low, high = (["    " + each for each in lines(part)] for part in (rows[:half], rows[half:]))
        return [f"if code < {FIRST_OPCODE + rows[half]}:", *low, "else:", *high]

    return "\n".join(" " * indent + line for line in lines(list(range(len(ELEMENTWISE)))))
