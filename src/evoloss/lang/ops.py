"""The one table of operators; every form of an operator follows from its row.

A row gives the operator's value and its first and second partial derivatives as texts in a small
scalar language: Python arithmetic over the operands `a`, `b`, `c` and the node's own value `v`,
and the functions of `SCALAR_FUNCTIONS`. `scalar_source` translates such a text to a backend;
NumPy, Numba, torch and sympy code are all made that way, so adding an operator is adding a row.
Operators over the whole batch (reductions and arrangements) have a NumPy text, a torch text, and
for each operand the text that pulls the gradient `g` of their value back to it.

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

NONE = "0.0"
"""The text of a derivative that is zero everywhere."""

SCALAR_FUNCTIONS = (
    "abs", "sign", "sqrt", "exp", "log", "tanh", "sigmoid", "softplus",
    "log1p", "expm1", "sin", "cos", "atan", "erf", "floor", "power", "detach",
    "minimum", "maximum", "where",
)  # fmt: skip
"""What the texts of a row may call; each backend brings a namespace with these names."""


class Kind(StrEnum):
    """How an operator acts on the types of its operands."""

    ELEMENTWISE = "elementwise"  # vectors and scalars; a vector if any operand is one
    COMPARISON = "comparison"  # two numbers per element to a mask
    SELECTION = "selection"  # (mask, number, number) per element
    LOGICAL = "logical"  # masks to a mask
    REDUCTION = "reduction"  # a vector to a scalar
    ARRANGEMENT = "arrangement"  # vectors to a vector that mixes their elements


BATCH_KINDS = (Kind.REDUCTION, Kind.ARRANGEMENT)
"""What needs the whole batch; the fused kernels, which see one element, leave it out."""


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    value: the scalar text of the result, from `a`, `b`, `c` (over the batch: a NumPy text).
    first: per operand the partial derivative ∂v/∂operand; `v` may be used for the value. Over the
        batch: the gradient in the operand, from that of the value, `g`.
    second: {(i, j): text} with i ≤ j, the second partials that are not zero everywhere.
    torch: the torch text of an operator over the batch; takes: what each of its operands is.
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
    torch: str = ""
    takes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "second", MappingProxyType(dict(self.second)))


_LARGE = f"abs(a) >= {GUARD}"
_A_LESS = "where(a < b, 1.0, where(a > b, 0.0, 0.5))"
_A_MORE = "where(a > b, 1.0, where(a < b, 0.0, 0.5))"
_INNER = "abs(a) <= b"  # where Huber's loss is a parabola
_SLOPE = 1.1283791670955126  # of erf at 0, 2 / sqrt(pi)
_POWER_SLOPE = "where(a == 0.0, where(b >= 0.0, 0.0, v * log(a)), v * log(a))"
_POWER_MIXED = (
    "where(b == 0.0, 0.0, power(a, b - 1.0) + b * where(a == 0.0, "
    "where(b >= 1.0, 0.0, power(a, b - 1.0) * log(a)), power(a, b - 1.0) * log(a)))"
)
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
    # The functions as PyTorch has them: without guards, for losses that are written for it.
    Operator("ln", 1, "log(a)", ("1.0 / a",), {(0, 0): "-1.0 / a / a"},
             latex=r"\ln\left({a}\right)"),
    Operator("root", 1, "sqrt(a)", ("0.5 / v",), {(0, 0): "-0.25 / v / a"},
             latex=r"\sqrt{{{a}}}"),
    Operator("log1p", 1, "log1p(a)", ("1.0 / (1.0 + a)",), {(0, 0): "-1.0 / (1.0 + a) / (1.0 + a)"},
             latex=r"\ln\left(1 + {a}\right)"),
    Operator("expm1", 1, "expm1(a)", ("v + 1.0",), {(0, 0): "v + 1.0"},
             latex=r"\left(e^{{{a}}} - 1\right)"),
    Operator("pow", 2, "power(a, b)",
             ("where(b == 0.0, 0.0, b * power(a, b - 1.0))", _POWER_SLOPE),
             {(0, 0): "where(b == 0.0, 0.0, where(b == 1.0, 0.0, "
                      "b * (b - 1.0) * power(a, b - 2.0)))",
              (0, 1): _POWER_MIXED,
              (1, 1): "where(a == 0.0, where(b >= 0.0, 0.0, v * log(a) * log(a)), "
                      "v * log(a) * log(a))"},
             latex=r"{{\left({a}\right)}}^{{{b}}}"),
    Operator("relu", 1, "where(a <= 0.0, 0.0, a)", ("where(a > 0.0, 1.0, 0.0)",),
             latex=r"\left[{a}\right]_+"),
    Operator("logsigmoid", 1, "-softplus(-a)", ("sigmoid(-a)",),
             {(0, 0): "-sigmoid(-a) * (1.0 - sigmoid(-a))"},
             latex=r"\log\sigma\left({a}\right)"),
    Operator("sin", 1, "sin(a)", ("cos(a)",), {(0, 0): "-v"}, latex=r"\sin\left({a}\right)"),
    Operator("cos", 1, "cos(a)", ("-sin(a)",), {(0, 0): "-v"}, latex=r"\cos\left({a}\right)",
             even=True),
    Operator("atan", 1, "atan(a)", ("1.0 / (1.0 + a * a)",),
             {(0, 0): "-2.0 * a / (1.0 + a * a) / (1.0 + a * a)"},
             latex=r"\arctan\left({a}\right)"),
    Operator("erf", 1, "erf(a)", (f"{_SLOPE} * exp(-a * a)",),
             {(0, 0): f"-2.0 * a * {_SLOPE} * exp(-a * a)"},
             latex=r"\operatorname{{erf}}\left({a}\right)"),
    Operator("floor", 1, "floor(a)", ("0.0",), latex=r"\left\lfloor{a}\right\rfloor"),
    # A bound passes the whole gradient at the tie; min and max pass half to either side.
    Operator("clamp_min", 2, "where(a < b, b, a)",
             ("where(a < b, 0.0, 1.0)", "where(a < b, 1.0, 0.0)"),
             latex=r"\max\left({a}, {b}\right)"),
    Operator("clamp_max", 2, "where(a > b, b, a)",
             ("where(a > b, 0.0, 1.0)", "where(a > b, 1.0, 0.0)"),
             latex=r"\min\left({a}, {b}\right)"),
    Operator("huber", 2, f"where({_INNER}, 0.5 * a * a, b * (abs(a) - 0.5 * b))",
             (f"where({_INNER}, a, b * sign(a))", f"where({_INNER}, 0.0, abs(a) - b)"),
             {(0, 0): f"where({_INNER}, 1.0, 0.0)", (0, 1): f"where({_INNER}, 0.0, sign(a))",
              (1, 1): f"where({_INNER}, 0.0, -1.0)"},
             latex=r"\operatorname{{huber}}_{{{b}}}\left({a}\right)"),
    Operator("detach", 1, "detach(a)", ("0.0",), latex=r"\operatorname{{sg}}\left[{a}\right]"),
    Operator("lt", 2, "where(a < b, 1.0, 0.0)", ("0.0", "0.0"), latex="{a} < {b}",
             infix="<", precedence=0, kind=Kind.COMPARISON),
    Operator("gt", 2, "where(a > b, 1.0, 0.0)", ("0.0", "0.0"), latex="{a} > {b}",
             infix=">", precedence=0, kind=Kind.COMPARISON),
    Operator("le", 2, "where(a <= b, 1.0, 0.0)", ("0.0", "0.0"), latex=r"{a} \le {b}",
             infix="<=", precedence=0, kind=Kind.COMPARISON),
    Operator("ge", 2, "where(a >= b, 1.0, 0.0)", ("0.0", "0.0"), latex=r"{a} \ge {b}",
             infix=">=", precedence=0, kind=Kind.COMPARISON),
    Operator("eq", 2, "where(a == b, 1.0, 0.0)", ("0.0", "0.0"), latex="{a} = {b}",
             infix="==", precedence=0, kind=Kind.COMPARISON, commutative=True),
    Operator("ne", 2, "where(a == b, 0.0, 1.0)", ("0.0", "0.0"), latex=r"{a} \ne {b}",
             infix="!=", precedence=0, kind=Kind.COMPARISON, commutative=True),
    Operator("and", 2, "where(a > 0.5, where(b > 0.5, 1.0, 0.0), 0.0)", ("0.0", "0.0"),
             latex=r"\left({a} \wedge {b}\right)", kind=Kind.LOGICAL, commutative=True),
    Operator("or", 2, "where(a > 0.5, 1.0, where(b > 0.5, 1.0, 0.0))", ("0.0", "0.0"),
             latex=r"\left({a} \vee {b}\right)", kind=Kind.LOGICAL, commutative=True),
    Operator("not", 1, "where(a > 0.5, 0.0, 1.0)", ("0.0",), latex=r"\neg\left({a}\right)",
             kind=Kind.LOGICAL),
    Operator("where", 3, "where(a > 0.5, b, c)",
             ("0.0", "where(a > 0.5, 1.0, 0.0)", "where(a > 0.5, 0.0, 1.0)"),
             latex=r"\left[\,{a}\;?\;{b} : {c}\,\right]", kind=Kind.SELECTION),
)  # fmt: skip


def _named(name: str) -> str:
    return rf"\operatorname{{{{{name}}}}}\left({{a}}\right)"


def _reduction(
    name: str, value: str, torch: str, first: str, takes: str = "number", latex: str = ""
) -> Operator:
    return Operator(name, 1, value, (first,), latex=latex or _named(name), kind=Kind.REDUCTION,
                    torch=torch, takes=(takes,))  # fmt: skip


_EXTREME = "g * (a == v) / sum(a == v)"

_REDUCTIONS = (
    _reduction("mean", "mean(a)", "torch.mean(a)", "g / size(a)"),
    _reduction("sum", "sum(a)", "torch.sum(a)", "g"),
    # Named as in PyTorch; between equal elements they share the gradient.
    _reduction("amin", "amin(a)", "torch.amin(a)", _EXTREME,
               latex=r"\operatorname{{min}}\left({a}\right)"),
    _reduction("amax", "amax(a)", "torch.amax(a)", _EXTREME,
               latex=r"\operatorname{{max}}\left({a}\right)"),
    # The lower of the two middle elements.
    _reduction("median", "median(a)", "torch.median(a)", "g * first(a == v)"),
    # Of the batch as it is, without Bessel's correction; flat where all elements are equal.
    _reduction("var", "var(a)", "torch.var(a, correction=0)",
               "2.0 * g * (a - mean(a)) / size(a)"),
    _reduction("std", "std(a)", "torch.std(a, correction=0)",
               "where(v == 0.0, 0.0, g * (a - mean(a)) / (size(a) * v))"),
    _reduction("norm", "norm(a)", "torch.linalg.vector_norm(a)", "where(v == 0.0, 0.0, g * a / v)",
               latex=r"\left\|{a}\right\|"),
    _reduction("logsumexp", "logsumexp(a)", "torch.logsumexp(a, dim=0)", "g * exp(a - v)"),
    Operator("quantile", 2, "quantile(a, b)",
             ("g * quantile_weights(a, b)", "g * quantile_slope(a, b)"),
             latex=r"Q_{{{b}}}\left({a}\right)", kind=Kind.REDUCTION,
             torch="torch.quantile(a, b)", takes=("vector", "scalar")),
    _reduction("size", "size(a)", "torch.full((), a.numel(), dtype=a.dtype, device=a.device)",
               "0.0", latex=r"\left|{a}\right|"),
    _reduction("any", "any(a)", "torch.any(a)", "0.0", "mask"),
    _reduction("all", "all(a)", "torch.all(a)", "0.0", "mask"),
)  # fmt: skip


def _arrangement(
    name: str, torch: str, first: tuple[str, ...], takes: tuple[str, ...], latex: str = ""
) -> Operator:
    operands = ", ".join(OPERANDS[: len(takes)])
    shown = r",\, ".join(f"{{{operand}}}" for operand in OPERANDS[: len(takes)])
    latex = latex or rf"\operatorname{{{{{name}}}}}\left({shown}\right)"
    return Operator(name, len(takes), f"{name}({operands})", first, latex=latex,
                    kind=Kind.ARRANGEMENT, torch=torch, takes=takes)  # fmt: skip


_ARRANGEMENTS = (
    _arrangement("softmax", "torch.softmax(a, dim=0)", ("v * (g - sum(g * v))",), ("vector",)),
    _arrangement("sort", "torch.sort(a).values", ("unsorted(a, g)",), ("vector",)),
    # The first b elements, and what is left after them.
    _arrangement("head", "a[: int(b)]", ("padded_after(a, g)", "0.0"), ("vector", "scalar"),
                 r"{{{a}}}_{{1 \ldots {b}}}"),
    _arrangement("tail", "a[int(b) :]", ("padded_before(a, g)", "0.0"), ("vector", "scalar"),
                 r"{{{a}}}_{{> {b}}}"),
    # The elements of b where the mask holds.
    _arrangement("select", "b[a > 0.5]", ("0.0", "scattered(a, b, g)"), ("mask", "vector"),
                 r"{{{b}}}_{{\left[{a}\right]}}"),
    _arrangement("cat", "torch.cat([a.reshape(-1), b.reshape(-1)])",
                 ("first_part(a, g)", "last_part(b, g)"), ("number", "number"),
                 r"\left[{a}, {b}\right]"),
    # 0, 1, 2, … and a number, one for each element of a.
    _arrangement("position", "torch.arange(a.numel(), dtype=a.dtype, device=a.device)", ("0.0",),
                 ("vector",)),
    _arrangement("like", "torch.zeros_like(a) + b", ("0.0", "g"), ("vector", "scalar"),
                 r"{b}_{{\left[{a}\right]}}"),
)  # fmt: skip

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {row.name: row for row in (*_ROWS, *_REDUCTIONS, *_ARRANGEMENTS)}
)
"""Every operator of the language by name."""

ELEMENTWISE = tuple(row for row in _ROWS if row.kind not in BATCH_KINDS)
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
