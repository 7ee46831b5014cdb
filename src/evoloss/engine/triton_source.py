"""Writes a program as Triton kernels: straight-line code, a variable for each node.

The statements at an operator are the same that the Numba kernels have (`rules`); here they act on a
whole block of elements. A kernel's first axis is the copies of the program, the second the blocks.
Sums over a block are written out one by one and added up later, so that their order is fixed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evoloss.engine import rules
from evoloss.engine.program import CONSTANT, FIRST_OPCODE, PREDICTION, TARGET, Programs
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
'''

_BEGIN = """
    p = tl.load(ROWS + tl.program_id(0))
    part = p * tl.num_programs(1) + tl.program_id(1)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = e < M
    zero = tl.zeros((BLOCK,), tl.float64)
    phi = PHI + p * N
    y = tl.load(Y + e, mask=inside, other=0.0).to(tl.float64)
    f = tl.load(F + p * STRIDE + e, mask=inside, other=0.0).to(tl.float64)
"""

_GRADIENT = '''

@triton.jit
def gradient(ROWS, F, Y, PHI, K, M, STRIDE, N, C, G, BLOCK: tl.constexpr):
    """The prediction's gradient G."""{begin}
{statements}
    tl.store(G + p * M + e, g, mask=inside)
'''

_BACKWARD = '''

@triton.jit
def backward(ROWS, F, Y, PHI, K, M, STRIDE, N, C, L, G, S, BLOCK: tl.constexpr):
    """The prediction's gradient G; each block's sums: L of the root, S for the weights."""{begin}
    sums = S + part * N
{statements}
    tl.store(L + part, tl.sum(tl.where(inside, v{root}, 0.0)))
    tl.store(G + p * M + e, g, mask=inside)
'''

_CURVATURE = '''

@triton.jit
def curvature(ROWS, F, Y, PHI, K, M, STRIDE, N, C, W, Z, G, S, BLOCK: tl.constexpr):
    """The Hessian times (W, Z): G in the prediction, S each block's sums for the weights."""{begin}
    sums = S + part * N
    along = Z + p * N
    w = tl.load(W + p * M + e, mask=inside, other=0.0).to(tl.float64)
{statements}
    tl.store(G + p * M + e, g, mask=inside)
'''


@dataclass(frozen=True)
class Node:
    """One node of a program. slots: the weight of each operand or −1; live: as in `Programs`."""

    place: int
    code: int
    operands: tuple[int, ...]
    slots: tuple[int, ...]
    live: bool

    @property
    def row(self) -> Operator | None:
        """The operator's row; None for a leaf."""
        return None if self.code < FIRST_OPCODE else ELEMENTWISE[self.code - FIRST_OPCODE]


def nodes_of(programs: Programs, index: int) -> tuple[Node, ...]:
    """The nodes of one program; equal for programs that differ in numbers only."""
    found = []
    for place, at in enumerate(range(programs.start[index], programs.start[index + 1])):
        operands, slots = programs.operands[at].tolist(), programs.slots[at].tolist()
        code, live = int(programs.code[at]), bool(programs.live[at])
        found.append(Node(place, code, tuple(operands), tuple(slots), live))
    return tuple(found)


def source(nodes: tuple[Node, ...]) -> str:
    """The text of a module with the kernels of a program without lookups."""
    values = [*_leaves(nodes), *_values(nodes)]
    slopes = [line for node in nodes for line in _tangent(node)]
    return "".join(
        [
            _HEADER,
            _written(_GRADIENT, nodes, values, _backwards(nodes, rules.gradient, "A", live=True)),
            _written(_BACKWARD, nodes, values, _backwards(nodes, rules.backward, "A")),
            _written(
                _CURVATURE, nodes, values, slopes, _backwards(nodes, rules.backward_tangent, "AB")
            ),
        ]
    )


def _written(template: str, nodes: tuple[Node, ...], *statements: Iterable[str]) -> str:
    lines = "\n".join(f"    {line}" for part in statements for line in part)
    return template.format(begin=_BEGIN.rstrip(), statements=lines, root=nodes[-1].place)


def _leaves(nodes: tuple[Node, ...]) -> list[str]:
    """The values of inputs and constants, which are numbered in the order of the nodes."""
    constants = [node.place for node in nodes if node.code == CONSTANT]
    lines = []
    for node in nodes:
        if node.code in (TARGET, PREDICTION):
            lines.append(f"v{node.place} = {'y' if node.code == TARGET else 'f'}")
    for number, place in enumerate(constants):
        lines.append(f"v{place} = zero + tl.load(K + p * C + {number})")
    return lines


def _values(nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    for node in nodes:
        if row := node.row:
            lines += [f"# {row.name}", *_operands(node, row, "V"), *rules.forward(row, _BLOCKS)]
            lines.append(f"v{node.place} = v_.to(tl.float64)")
    return lines


def _tangent(node: Node) -> list[str]:
    """A node's derivative along the direction."""
    row = node.row
    if row is None:
        return [f"D{node.place} = {'w' if node.code == PREDICTION else 'zero'}"]
    lines = [*_operands(node, row, "VD"), *_directions(node, row), f"v_ = v{node.place}"]
    return [*lines, *rules.tangent(row, _BLOCKS), f"D{node.place} = zero + d_"]


def _backwards(nodes: tuple[Node, ...], rule: Rule, adjoints: str, live: bool = False) -> list[str]:
    """The adjoints from the root down, the weights' sums, and the prediction's gradient g.

    adjoints: A alone, or A of the values and B of the directions. live: only what depends on the
    prediction, without sums.
    """
    root = nodes[-1].place
    seeds = {"A": "zero", "B": "zero + 1.0"} if "B" in adjoints else {"A": "zero + 1.0"}
    lines = [f"{name}{root} = {seed}" for name, seed in seeds.items()] + ["g = zero"]
    for node in reversed(nodes):
        if node.code == PREDICTION:
            lines.append(f"g = g + A{node.place}")
        elif (row := node.row) and (node.live or not live):
            lines += _adjoints(node, row, rule, adjoints, sums=not live)
    return lines


def _adjoints(node: Node, row: Operator, rule: Rule, adjoints: str, sums: bool) -> list[str]:
    """The adjoints of one node's operands, from its own."""
    two = "B" in adjoints
    lines = [f"# {row.name}", *_operands(node, row, "VD" if two else "V"), f"v_ = v{node.place}"]
    lines += _directions(node, row) if two else []
    lines += [f"{name.lower()}_ = {name}{node.place}" for name in adjoints]
    lines += [f"s{x} = 0.0" for x in OPERANDS[: row.arity]] if sums else []
    lines += rule(row, _BLOCKS)
    for x, operand, slot in zip(OPERANDS[: row.arity], node.operands, node.slots, strict=False):
        lines += [f"{name}{operand} = {name}{x}" for name in adjoints]
        if sums and slot >= 0:
            lines.append(f"tl.store(sums + {slot}, tl.sum(tl.where(inside, s{x}, 0.0)))")
    return lines


def _operands(node: Node, row: Operator, arrays: str) -> list[str]:
    """The operands' values (V), directions (D) and weights, by the names that the rules use."""
    lines = []
    for x, operand, slot in zip(OPERANDS[: row.arity], node.operands, node.slots, strict=False):
        lines += [f"{n}{x} = {'v' if n == 'V' else n}{operand}" for n in arrays]
        lines.append(f"w{x} = 1.0" if slot < 0 else f"w{x} = tl.load(phi + {slot})")
    return lines


def _directions(node: Node, row: Operator) -> list[str]:
    """The direction in the operands' weights."""
    return [
        f"z{x} = 0.0" if slot < 0 else f"z{x} = tl.load(along + {slot})"
        for x, slot in zip(OPERANDS[: row.arity], node.slots, strict=False)
    ]
