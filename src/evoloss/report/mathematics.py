"""Losses as mathematics in the page: MathML, long ones broken into lines with named parts."""

from __future__ import annotations

import html
import math
from collections import Counter
from dataclasses import replace

from evoloss.lang.canonical import canonical
from evoloss.lang.expr import Call, Const, Expr, Input, call, inputs_of, size, walk
from evoloss.lang.network import NAME, WEIGHTS, Network
from evoloss.lang.ops import OPERATORS
from evoloss.lang.text import ATOM, number, to_text

DIGITS = 4
_LINE = 36.0
"""How wide a line may be, in characters: what a telephone shows without scrolling."""

_LONGEST = 150  # nodes of a loss that is still written as mathematics
_SHORT = 6.0  # parts that are not wider get no name

_TIMES = '<mspace width="0.15em"/>'  # between a number and what follows it: no symbol


def shortened(expr: Expr, digits: int = DIGITS) -> Expr:
    """The simplified loss with its constants rounded, for reading only."""
    return _rounded(canonical(_folded(canonical(_rounded(expr, digits)))), digits)


def _folded(expr: Expr) -> Expr:
    """Analytic quotients by a constant as products; factors and signs of others drawn in."""
    if not isinstance(expr, Call):
        return expr
    node = replace(expr, args=tuple(_folded(arg) for arg in expr.args))
    match node:
        case Call("aq", (a, Const(b))):
            return call("mul", Const(1.0 / math.hypot(1.0, b)), a)
        case Call("aq", (a, Call("mul", (Const(b), rest)))) if b < 0:
            return call("aq", a, call("mul", Const(-b), rest))
        case Call("mul", (Const() as factor, Call("aq", (a, b)))):
            return call("aq", _folded(canonical(call("mul", factor, a))), b)
    return node


def _rounded(expr: Expr, digits: int) -> Expr:
    match expr:
        case Const(value):
            rounded = float(f"{value:.{digits}g}")
            return Const(rounded if math.isfinite(rounded) else value)
        case Call(_, args):
            return replace(expr, args=tuple(_rounded(arg, digits) for arg in args))
    return expr


def formula(expr: Expr, digits: int = DIGITS) -> str:
    """HTML of the simplified loss `ℓ = …`, and below it the parts that have names of their own.

    A loss of log-probabilities is `L`; `ℓ` are the log-probabilities then.

    Every line is an element of its own, which scrolls by itself if it is still too wide. What
    nobody would read as mathematics is plain text.
    """
    short = shortened(expr, digits)
    name = "L" if inputs_of(expr) & set(_BATCH_INPUTS) else "ℓ"
    if size(short) > _LONGEST:
        text = html.escape(to_text(short))
        return f'<div class="formula"><code>{text}</code></div>'
    body, parts = split(short)
    lines = [_line(name, body), *(_line(f"u{index}", part) for index, part in parts)]
    first, rest = lines[0], "".join(lines[1:])
    where = f'<div class="where"><span>with</span>{rest}</div>' if rest else ""
    return f'<div class="formula">{first}{where}</div>'


def split(expr: Expr, limit: float = _LINE) -> tuple[Expr, list[tuple[int, Expr]]]:
    """The expression with some parts replaced by inputs u1, u2, …, and those parts.

    Those that occur again go first, then the widest; equal parts get one name. Putting the parts
    back gives the expression that was split.
    """
    parts: list[tuple[int, Expr]] = []
    while width(expr) > limit:
        worth = Counter(
            node
            for node in walk(expr)
            if isinstance(node, Call) and node != expr and _SHORT < width(node) <= 0.75 * limit
        )
        if not worth:
            break
        widest = max(worth, key=lambda node: (worth[node] > 1, width(node)))
        parts.append((len(parts) + 1, widest))
        expr = _with(expr, widest, Input(f"u{len(parts)}"))
    return expr, parts


def _with(expr: Expr, old: Expr, new: Expr) -> Expr:
    if expr == old:
        return new
    if not isinstance(expr, Call):
        return expr
    return replace(expr, args=tuple(_with(arg, old, new) for arg in expr.args))


def width(expr: Expr) -> float:
    """About how many characters wide the formula is."""
    match expr:
        case Input(name):
            return 1.0 if len(name) == 1 else 1.5
        case Const(value):
            return float(len(number(value, DIGITS)))
        case Network():
            return float(len(f"{NAME}{WEIGHTS}(y,f)"))
        case Call("aq", (a, b)):
            return max(width(a), 5.0 + width(b))
        case Call("div", (a, b)):
            return max(width(a), width(b))
        case Call(op, args):
            row = OPERATORS[op]
            inside = sum(width(arg) for arg in args)
            if op == "mul" and isinstance(args[0], Const):
                return inside + 0.5
            if row.infix is not None or op in _TEMPLATES:
                return inside + 2.5
            return inside + len(op) + len(args) + 1.0


def _line(name: str, expr: Expr) -> str:
    left = f"<mrow>{_identifier(name)}<mo>=</mo>{_write(expr)[0]}</mrow>"
    return f'<div class="line"><math display="block">{left}</math></div>'


def mathml(expr: Expr, digits: int = DIGITS) -> str:
    """The expression as it stands, as a MathML element."""
    return f"<math>{_write(_rounded(expr, digits))[0]}</math>"


_TEMPLATES = {
    "div": "<mfrac>{a}{b}</mfrac>",
    "aq": "<mfrac>{a}<msqrt><mn>1</mn><mo>+</mo><msup>{bp}<mn>2</mn></msup></msqrt></mfrac>",
    "square": "<msup>{ap}<mn>2</mn></msup>",
    "abs": "<mrow><mo>|</mo>{a}<mo>|</mo></mrow>",
    "sqrt": "<msqrt><mo>|</mo>{a}<mo>|</mo></msqrt>",
    "log": "<mrow><mi>log</mi><mo>&#x2061;</mo><mo>|</mo>{a}<mo>|</mo></mrow>",
    "exp": "<msup><mi>e</mi>{a}</msup>",
    "sigmoid": "<mrow><mi>σ</mi><mo>(</mo>{a}<mo>)</mo></mrow>",
    "logsigmoid": "<mrow><mi>log</mi><mo>&#x2061;</mo><mi>σ</mi><mo>(</mo>{a}<mo>)</mo></mrow>",
    "pow": "<msup>{ap}{b}</msup>",
    "select": "<mrow>{bp}<mo>[</mo>{a}<mo>]</mo></mrow>",
    "detach": "<mrow><mi>sg</mi><mo>[</mo>{a}<mo>]</mo></mrow>",
    "relu": "<msub><mrow><mo>[</mo>{a}<mo>]</mo></mrow><mo>+</mo></msub>",
}
"""The operators that are not written with their symbol or name; {ap}: in parentheses if need be."""

_SYMBOLS = {"add": "+", "sub": "−", "mul": "·", "neg": "−", "lt": "&lt;", "gt": "&gt;"}

_BATCH_INPUTS = {
    "log_probs_forget": "<msub><mi>ℓ</mi><mi>F</mi></msub>",
    "log_probs_retain": "<msub><mi>ℓ</mi><mi>R</mi></msub>",
    "ref_log_probs_forget": "<msubsup><mi>ℓ</mi><mi>F</mi><mn>0</mn></msubsup>",
    "ref_log_probs_retain": "<msubsup><mi>ℓ</mi><mi>R</mi><mn>0</mn></msubsup>",
    "mask_forget": "<msub><mi>m</mi><mi>F</mi></msub>",
    "mask_retain": "<msub><mi>m</mi><mi>R</mi></msub>",
}
BATCH_SYMBOLS = (
    "ℓ is the mean log-probability of an answer (in a loss of tokens, of a token; m marks those of "
    "answers), ℓ⁰ the same before unlearning; F is the forget set, R the retain set; "
    "sg stops the gradient"
)
"""What the symbols of an unlearning loss mean."""

_NETWORK = (
    f"<mrow><msub><mi>{NAME}</mi><mn>{WEIGHTS}</mn></msub><mo>&#x2061;</mo>"
    "<mo>(</mo><mi>y</mi><mo>,</mo><mi>f</mi><mo>)</mo></mrow>"
)
"""A neural network, with the number of its weights in place of the weights."""


def _write(expr: Expr) -> tuple[str, int]:
    """The markup, one element, and the precedence of its outermost operator."""
    match expr:
        case Input(name):
            return _identifier(name), 3 if name.startswith("ref_") else ATOM
        case Const(value):
            return _constant(value)
        case Network():
            return _NETWORK, ATOM
        case Call(op, args):
            if op in _TEMPLATES:
                parts = dict(zip("abc", (_write(arg)[0] for arg in args), strict=False))
                atoms = dict(zip(("ap", "bp"), (_grouped(arg, ATOM) for arg in args), strict=False))
                markup = _TEMPLATES[op].format(**parts, **atoms)
                return markup, 3 if op in ("square", "exp", "pow") else ATOM
            row = OPERATORS[op]
            if row.infix is None:
                inside = "<mo>,</mo>".join(_write(arg)[0] for arg in args)
                name = f"<mi>{op}</mi><mo>&#x2061;</mo>"
                return f"<mrow>{name}<mo>(</mo>{inside}<mo>)</mo></mrow>", ATOM
            if op == "mul" and isinstance(args[1], Input) and isinstance(args[0], Call):
                args = args[::-1]  # y · log f rather than log f · y
            return _infix(op, args), row.precedence


def _infix(op: str, args: tuple[Expr, ...]) -> str:
    row = OPERATORS[op]
    symbol = f"<mo>{_SYMBOLS.get(op, html.escape(row.infix or op))}</mo>"
    if row.arity == 1:
        return f"<mrow>{symbol}{_grouped(args[0], 2, leading=False)}</mrow>"
    least = row.precedence + (row.precedence == 0)
    left = _grouped(args[0], least)
    # a + b + c and a · b · c need no parentheses on either side.
    right = _grouped(args[1], least + (not row.commutative), leading=False)
    if op == "mul" and isinstance(args[0], Const) and not right.startswith(("<mn>", "<mrow><mn>")):
        symbol = _TIMES
    return f"<mrow>{left}{symbol}{right}</mrow>"


def _grouped(expr: Expr, least: int, leading: bool = True) -> str:
    """The operand in parentheses where it binds too loosely, or its minus would follow a symbol."""
    markup, precedence = _write(expr)
    signed = isinstance(expr, Const) and expr.value < 0
    if precedence < least or (signed and not leading):
        return f"<mrow><mo>(</mo>{markup}<mo>)</mo></mrow>"
    return markup


def _constant(value: float) -> tuple[str, int]:
    text = number(value, DIGITS)
    mantissa, exponent, power = text.lstrip("-").partition("e")
    markup = f"<mn>{mantissa}</mn>"
    if exponent:
        shown = str(int(power)).replace("-", "−")
        markup += f"<mo>·</mo><msup><mn>10</mn><mn>{shown}</mn></msup>"
    if text.startswith("-"):
        return f"<mrow><mo>−</mo>{markup}</mrow>", 2 if exponent else 3
    return (f"<mrow>{markup}</mrow>", 2) if exponent else (markup, ATOM)


def _identifier(name: str) -> str:
    if name in _BATCH_INPUTS:
        return _BATCH_INPUTS[name]
    if name[0] == "u" and name[1:].isdigit():
        return f"<msub><mi>u</mi><mn>{name[1:]}</mn></msub>"
    return f"<mi>{html.escape(name)}</mi>"
