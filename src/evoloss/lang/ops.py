"""The one table of operators; every form of an operator follows from its row.

A row gives the operator's value and its first and second partial derivatives as texts in a small
scalar language: Python arithmetic over the operands `a`, `b`, `c` and the node's own value `v`,
and the functions of `SCALAR_FUNCTIONS`. `scalar_source` translates such a text to a backend;
NumPy, Numba, torch and sympy code are all made that way, so adding an operator is adding a row.

The functions of EvoMAL and their domain guards are those of Raymond et al. 2023 (arXiv 2403.00865).
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType

GUARD = 1e-7
"""Below this magnitude the arguments of log and sqrt are clamped (and have no gradient)."""

OPERANDS = ("a", "b", "c")

SCALAR_FUNCTIONS = (
    "abs", "sign", "sqrt", "exp", "log", "tanh", "sigmoid", "softplus",
    "minimum", "maximum", "where",
)  # fmt: skip
"""What the texts of a row may call; each backend brings a namespace with these names."""


class Kind(StrEnum):
    """How an operator acts on the types of its operands."""

    ELEMENTWISE = "elementwise"  # vectors and scalars; a vector if any operand is one
    COMPARISON = "comparison"  # two numbers per element to a mask
    SELECTION = "selection"  # (mask, number, number) per element
    REDUCTION = "reduction"  # a vector to a scalar


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    value: the scalar text of the result, from `a`, `b`, `c` (for a reduction: its NumPy name).
    first: per operand the partial derivative ∂v/∂operand; `v` may be used for the value.
    second: {(i, j): text} with i ≤ j, the second partials that are not zero everywhere.
    latex: template with {a}, {b}, {c}; infix: the symbol if written between its operands.
    precedence: of the printed form; 0 comparison, 1 sum, 2 product, 3 sign, 4 call or atom.
    even: whether the operator cannot tell its operand from the operand's negative.
    """

    name: str
    arity: int
    value: str
    first: tuple[str, ...]
    second: Mapping[tuple[int, int], str] = field(default_factory=dict)
    latex: str = ""
    infix: str | None = None
    precedence: int = 4
    kind: Kind = Kind.ELEMENTWISE
    commutative: bool = False
    even: bool = False
    complexity: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "second", MappingProxyType(dict(self.second)))


_LARGE = f"abs(a) >= {GUARD}"
_A_LESS = "where(a < b, 1.0, where(a > b, 0.0, 0.5))"
_A_MORE = "where(a > b, 1.0, where(a < b, 0.0, 0.5))"
_R2 = "(1.0 / (1.0 + b * b))"  # the squared reciprocal of the analytic quotient's denominator

_ROWS = (
    Operator("add", 2, "a + b", ("1.0", "1.0"), latex="{a} + {b}",
             infix="+", precedence=1, commutative=True),
    Operator("sub", 2, "a - b", ("1.0", "-1.0"), latex="{a} - {b}", infix="-", precedence=1),
    Operator("mul", 2, "a * b", ("b", "a"), {(0, 1): "1.0"}, latex=r"{a} \cdot {b}",
             infix="*", precedence=2, commutative=True),
    Operator("div", 2, "a / b", ("1.0 / b", "-a / b / b"),
             {(0, 1): "-1.0 / b / b", (1, 1): "2.0 * a / b / b / b"},
             latex=r"\frac{{{a}}}{{{b}}}", infix="/", precedence=2),
    # The analytic quotient of Ni et al. 2013: a division that has no pole.
    Operator("aq", 2, "a / sqrt(1.0 + b * b)",
             ("1.0 / sqrt(1.0 + b * b)", f"-a * b * {_R2} / sqrt(1.0 + b * b)"),
             {(0, 1): f"-b * {_R2} / sqrt(1.0 + b * b)",
              (1, 1): f"a * (2.0 - 3.0 * {_R2}) * {_R2} / sqrt(1.0 + b * b)"},
             latex=r"\frac{{{a}}}{{\sqrt{{1 + \left({b}\right)^2}}}}"),
    Operator("neg", 1, "-a", ("-1.0",), latex="-{a}", infix="-", precedence=3),
    Operator("sign", 1, "sign(a)", ("0.0",), latex=r"\operatorname{{sign}}\left({a}\right)"),
    Operator("square", 1, "a * a", ("2.0 * a",), {(0, 0): "2.0"},
             latex=r"\left({a}\right)^2", even=True),
    Operator("abs", 1, "abs(a)", ("sign(a)",), latex=r"\left|{a}\right|", even=True),
    Operator("log", 1, f"log(maximum(abs(a), {GUARD}))", (f"where({_LARGE}, 1.0 / a, 0.0)",),
             {(0, 0): f"where({_LARGE}, -1.0 / a / a, 0.0)"},
             latex=r"\log\left|{a}\right|", even=True),
    Operator("sqrt", 1, f"sqrt(maximum(abs(a), {GUARD}))",
             (f"where({_LARGE}, 0.5 * sign(a) / v, 0.0)",),
             {(0, 0): f"where({_LARGE}, -0.25 / v / abs(a), 0.0)"},
             latex=r"\sqrt{{\left|{a}\right|}}", even=True),
    Operator("tanh", 1, "tanh(a)", ("1.0 - v * v",), {(0, 0): "-2.0 * v * (1.0 - v * v)"},
             latex=r"\tanh\left({a}\right)"),
    Operator("min", 2, "minimum(a, b)", (_A_LESS, _A_MORE),
             latex=r"\min\left({a}, {b}\right)", commutative=True),
    Operator("max", 2, "maximum(a, b)", (_A_MORE, _A_LESS),
             latex=r"\max\left({a}, {b}\right)", commutative=True),
    Operator("exp", 1, "exp(a)", ("v",), {(0, 0): "v"}, latex=r"e^{{{a}}}"),
    Operator("sigmoid", 1, "sigmoid(a)", ("v * (1.0 - v)",),
             {(0, 0): "v * (1.0 - v) * (1.0 - 2.0 * v)"}, latex=r"\sigma\left({a}\right)"),
    Operator("softplus", 1, "softplus(a)", ("sigmoid(a)",),
             {(0, 0): "sigmoid(a) * (1.0 - sigmoid(a))"},
             latex=r"\operatorname{{softplus}}\left({a}\right)"),
    Operator("lt", 2, "where(a < b, 1.0, 0.0)", ("0.0", "0.0"), latex="{a} < {b}",
             infix="<", precedence=0, kind=Kind.COMPARISON),
    Operator("gt", 2, "where(a > b, 1.0, 0.0)", ("0.0", "0.0"), latex="{a} > {b}",
             infix=">", precedence=0, kind=Kind.COMPARISON),
    Operator("where", 3, "where(a > 0.5, b, c)",
             ("0.0", "where(a > 0.5, 1.0, 0.0)", "where(a > 0.5, 0.0, 1.0)"),
             latex=r"\left[\,{a}\;?\;{b} : {c}\,\right]", kind=Kind.SELECTION),
    Operator("mean", 1, "mean", (), latex=r"\operatorname{{mean}}\left({a}\right)",
             kind=Kind.REDUCTION),
    Operator("sum", 1, "sum", (), latex=r"\operatorname{{sum}}\left({a}\right)",
             kind=Kind.REDUCTION),
)  # fmt: skip

OPERATORS: Mapping[str, Operator] = MappingProxyType({row.name: row for row in _ROWS})
"""Every operator of the language by name."""

ELEMENTWISE = tuple(row for row in _ROWS if row.kind is not Kind.REDUCTION)
"""The operators that fused kernels know; the position in this tuple is the opcode."""

EVOMAL_FUNCTIONS = (
    "add", "sub", "mul", "aq", "sign", "square", "abs", "log", "sqrt", "tanh", "min", "max",
)  # fmt: skip
"""The function set of the EvoMAL paper."""


class _Lazy(ast.NodeTransformer):
    """Writes `where` as Python's conditional expression, for scalar (Numba) code."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "where":
            condition, yes, no = node.args
            return ast.IfExp(test=condition, body=yes, orelse=no)
        return node


@cache
def scalar_source(text: str) -> str:
    """A row's text as scalar Python source: `where(c, x, y)` becomes `x if c else y`."""
    return ast.unparse(ast.fix_missing_locations(_Lazy().visit(ast.parse(text, mode="eval"))))
