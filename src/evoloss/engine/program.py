"""Loss expressions as flat programs: arrays of opcodes that the kernels walk.

A program lists the nodes of a tree in post-order, the root last. Each edge may carry a weight,
named by its slot in φ; slot −1 is a fixed weight of 1.

A network is the program softplus(a y + b f), where a and b are looked up (see `fan`): SECTOR finds
the sector of (y, f), ENTRY its slopes. Lookups are steps: no derivative passes through them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evoloss.engine.fan import fan
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, Const, Expr, Input, inputs_of
from evoloss.lang.network import Network
from evoloss.lang.ops import ELEMENTWISE

Weights = Literal["edges", "constants", "none"]

TARGET, PREDICTION, CONSTANT, SECTOR, ENTRY = range(5)
FIRST_OPCODE = 5
OPCODE = {row.name: FIRST_OPCODE + index for index, row in enumerate(ELEMENTWISE)}
_INPUT = {"y": TARGET, "f": PREDICTION}


@dataclass(frozen=True)
class Programs:
    """P programs end to end, with T nodes in all; everything the kernels read.

    code: (T,) opcodes; operands: (T, 3) positions within the own program; slots: (T, 3) weight
    of each operand or −1; constant: (T,) values of constant leaves, then the tables of networks; a
    lookup's value is where its own table begins; live: (T,) whether the node has a
    derivative in the prediction; start: (P + 1,) where each program begins; phi: (P, N) initial
    weights, N the most that any has, 1 in the padding; weights: (P,) how many each has.
    """

    code: NDArray[np.int64]
    operands: NDArray[np.int64]
    slots: NDArray[np.int64]
    constant: NDArray[np.float64]
    live: NDArray[np.bool_]
    start: NDArray[np.int64]
    phi: NDArray[np.float64]
    weights: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def longest(self) -> int:
        """Nodes of the longest program."""
        return int(np.diff(self.start).max())


_Row = tuple[int, list[int], list[int], float, bool]


class _Flattener:
    """Collects the nodes of one expression in post-order."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.phi: list[float] = []
        self.rows: list[_Row] = []
        self.tables: list[float] = []

    def add(self, expr: Expr) -> int:
        """Appends a subtree; returns the position of its root."""
        match expr:
            case Input(name):
                return self._append(_leaf(_INPUT[name], live=name == "f"))
            case Const(value):
                return self._append(_leaf(CONSTANT, value))
            case Network():
                if self.weights == "constants":
                    self.phi += expr.weights
                    return self._append(_leaf(CONSTANT, math.nan))
                return self._network(expr)
            case Call(op, args):
                return self._append(self._call(op, args))

    def _append(self, row: _Row) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def _network(self, network: Network) -> int:
        """softplus(a y + b f) and its lookups; the table is K, K angles, and twice K + 1 slopes."""
        begins, slopes = fan(network)
        table = len(self.tables)
        # The point (0, 0) is in no sector; as for any ReLU at zero, its slopes are zero.
        self.tables += [len(begins), *begins, *slopes[0], 0.0, *slopes[1], 0.0]
        y, f = self.add(Input("y")), self.add(Input("f"))
        sector = self._append(_node(SECTOR, [y, f], table))
        terms = []
        for number, x in enumerate((y, f)):
            place = table + 1 + len(begins) + number * (len(begins) + 1)
            slope = self._append(_node(ENTRY, [sector], place))
            terms.append(self._append(_node(OPCODE["mul"], [slope, x], live=x == f)))
        line = self._append(_node(OPCODE["add"], terms, live=True))
        return self._append(_node(OPCODE["softplus"], [line], live=True))

    def _call(self, op: str, args: tuple[Expr, ...]) -> _Row:
        operands, slots = [0] * 3, [-1] * 3
        for index, arg in enumerate(args):
            # The slot is taken before the subtree's: φ is numbered in pre-order.
            if self.weights == "edges":
                slots[index] = self._slot(1.0)
            elif self.weights == "constants" and isinstance(arg, Const):
                slots[index] = self._slot(arg.value)
                arg = Const(1.0)
            elif self.weights == "none":
                factor, arg = _without_factor(arg)
                if factor != 1.0:
                    slots[index] = self._slot(factor)
            operands[index] = self.add(arg)
        live = any(self.rows[operands[index]][4] for index in range(len(args)))
        return OPCODE[op], operands, slots, 0.0, live

    def _slot(self, value: float) -> int:
        self.phi.append(value)
        return len(self.phi) - 1


def _leaf(code: int, value: float = 0.0, live: bool = False) -> _Row:
    return code, [0] * 3, [-1] * 3, value, live


def _node(code: int, operands: list[int], value: float = 0.0, live: bool = False) -> _Row:
    """A call whose edges have no weights."""
    return code, [*operands, 0, 0][:3], [-1] * 3, value, live


def _without_factor(expr: Expr) -> tuple[float, Expr]:
    """An operand as a number times the rest; an operand without inputs as a constant.

    A tuned loss is full of both: every weight is a product, and evolution likes to build its
    numbers from ones. Taking them out of the program makes it a third as long.
    """
    factor = 1.0
    while isinstance(expr, Call) and expr.op == "mul":
        left, right = expr.args
        if isinstance(left, Const):
            factor, expr = factor * left.value, right
        elif isinstance(right, Const):
            factor, expr = factor * right.value, left
        else:
            break
    if isinstance(expr, Call) and not inputs_of(expr):
        value = float(numpy_value(expr, {}))
        if math.isfinite(value):
            expr = Const(value)
    return factor, expr


def flatten(expressions: Sequence[Expr], weights: Weights = "edges") -> Programs:
    """The programs of some expressions.

    weights: what φ consists of: every edge (EvoMAL), the numeric constants, or nothing that is
        tuned; then constant factors are taken out of the program and put into φ.
    """
    flat = []
    for expr in expressions:
        flattener = _Flattener(weights)
        flattener.add(expr)
        flat.append(flattener)
    rows = [row for each in flat for row in each.rows]
    tables = [0, *np.cumsum([len(each.tables) for each in flat])]
    constant = [
        row[3] + (len(rows) + begin if row[0] in (SECTOR, ENTRY) else 0)
        for each, begin in zip(flat, tables[:-1], strict=True)
        for row in each.rows
    ]
    width = max((len(each.phi) for each in flat), default=0)
    phi = np.ones((len(flat), width))
    for index, each in enumerate(flat):
        phi[index, : len(each.phi)] = each.phi
    return Programs(
        code=np.array([row[0] for row in rows], dtype=np.int64),
        operands=np.array([row[1] for row in rows], dtype=np.int64).reshape(-1, 3),
        slots=np.array([row[2] for row in rows], dtype=np.int64).reshape(-1, 3),
        constant=np.array([*constant, *(x for each in flat for x in each.tables)]),
        live=np.array([row[4] for row in rows], dtype=np.bool_),
        start=np.cumsum([0, *(len(each.rows) for each in flat)], dtype=np.int64),
        phi=phi,
        weights=np.array([len(each.phi) for each in flat], dtype=np.int64),
    )
