"""Canonical forms: expressions that are equal by simple algebra become the same expression.

A sum is kept as terms with coefficients, a product as a coefficient and factors with powers; both
are sorted, constants are folded, and operators that cannot tell their operand from its negative
get the sign chosen for them. The value stays what it was, up to rounding. Folding that would
leave the range of floats does not take place.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping

from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Call, Const, Expr, call
from evoloss.lang.ops import OPERATORS, Kind
from evoloss.lang.text import to_text

DIGITS = 12
"""Significant digits of the constants in a canonical text: fewer than rounding can disturb."""

_NON_NEGATIVE = frozenset({"abs", "square", "sqrt", "exp", "sigmoid", "softplus", "relu"})
_SUMS = frozenset({"add", "sub"})
_ONE, _ZERO = Const(1.0), Const(0.0)


def canonical_text(expr: Expr) -> str:
    """The text of the canonical form: the same for losses that are the same by simple algebra."""
    return to_text(canonical(expr), DIGITS)


def canonical(expr: Expr) -> Expr:
    """The canonical form of an expression; its own canonical form is itself."""
    if not isinstance(expr, Call):
        return _ZERO if expr == _ZERO else expr  # -0.0 becomes 0.0
    node = _sorted(Call(expr.op, tuple(canonical(arg) for arg in expr.args)))
    try:
        return _simplified(node)
    except OverflowError:
        return node


def _simplified(node: Call) -> Expr:
    """A node of canonical operands in canonical form. Raises OverflowError out of range."""
    if (folded := _folded(node)) is not None:
        return folded
    op, args = node.op, node.args
    if op in _SUMS or op == "neg":
        return _sum(*_terms(node))
    if op in ("mul", "square"):
        return _product(*_factors(node))
    if op in ("min", "max"):
        return _extremum(op, args)
    if OPERATORS[op].even:
        operand = _unsigned(args[0])
        return _absolute(operand) if op == "abs" else call(op, operand)
    if op == "div" and args[1] in (_ONE, Const(-1.0)):
        return args[0] if args[1] == _ONE else _simplified(call("neg", args[0]))
    if op == "aq" and args[1] == _ZERO:
        return args[0]
    if op == "pow" and args[1] in (_ONE, Const(2.0)):
        return args[0] if args[1] == _ONE else _simplified(call("square", args[0]))
    if op in ("gt", "ge"):
        return call("lt" if op == "gt" else "le", args[1], args[0])
    if op == "logsigmoid":
        return _simplified(call("neg", call("softplus", _simplified(call("neg", args[0])))))
    if op == "detach" and isinstance(args[0], Call) and args[0].op == "detach":
        return args[0]
    if op == "where" and args[1] == args[2]:
        return args[1]
    return node


def _sorted(node: Call) -> Call:
    """The node with the operands of a commutative operator in order."""
    commutative = OPERATORS[node.op].commutative
    return Call(node.op, tuple(sorted(node.args, key=to_text))) if commutative else node


def _folded(node: Call) -> Expr | None:
    """The number that a call of constants is; None if it is not one, or not finite."""
    numbers = OPERATORS[node.op].kind is Kind.ELEMENTWISE
    if not numbers or not all(isinstance(arg, Const) for arg in node.args):
        return None
    value = float(numpy_value(node, {}))
    return Const(value + 0.0) if math.isfinite(value) else None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise OverflowError
    return value


def _times(a: float, b: float) -> float:
    """The product. Raises OverflowError if it is infinite, or so small that digits are lost."""
    value = _finite(a * b)
    if abs(value) < sys.float_info.min and not {0.0, 1.0} & {abs(a), abs(b)}:
        raise OverflowError
    return value


# Sums: {term: coefficient} and a constant.


def _terms(expr: Expr) -> tuple[dict[Expr, float], float]:
    """The terms and the constant of a sum whose operands are canonical."""
    if isinstance(expr, Const):
        return {}, expr.value
    if isinstance(expr, Call) and expr.op in _SUMS:
        try:
            left, right = _terms(expr.args[0]), _terms(expr.args[1])
            return _added(left, right, 1.0 if expr.op == "add" else -1.0)
        except OverflowError:
            return {expr: 1.0}, 0.0
    if isinstance(expr, Call) and expr.op == "neg":
        return _added(({}, 0.0), _terms(expr.args[0]), -1.0)
    coefficient, factors = _factors(expr)
    term = _product(1.0, factors)
    if abs(coefficient) == 1.0 and isinstance(term, Call) and term.op in _SUMS and term != expr:
        return _added(({}, 0.0), _terms(term), coefficient)
    return {term: coefficient}, 0.0


def _added(
    left: tuple[dict[Expr, float], float], right: tuple[dict[Expr, float], float], sign: float
) -> tuple[dict[Expr, float], float]:
    """left + sign · right, without the terms that cancel."""
    terms = dict(left[0])
    for term, coefficient in right[0].items():
        terms[term] = _finite(terms.get(term, 0.0) + sign * coefficient)
    return {t: c for t, c in terms.items() if c}, _finite(left[1] + sign * right[1])


def _sum(terms: Mapping[Expr, float], constant: float) -> Expr:
    """The expression of a sum: positive terms, negative terms, constant, each sorted."""
    for term, coefficient in terms.items():
        if abs(coefficient) == 1.0 and isinstance(term, Call) and term.op in _SUMS:
            inner = _terms(term)
            if term not in inner[0]:  # coefficients that came to 1 leave a sum within the sum
                rest = {t: c for t, c in terms.items() if t != term}
                return _sum(*_added((rest, constant), inner, coefficient))
    ordered = sorted(terms, key=to_text)
    parts = [(term, terms[term]) for term in ordered if terms[term] > 0]
    negative = [(term, terms[term]) for term in ordered if terms[term] < 0]
    constants: list[tuple[Expr, float]] = [(_ONE, constant)] if constant else []
    parts += constants + negative if not parts and constant > 0 else negative + constants
    if not parts:
        return _ZERO
    total = _scaled(*parts[0])
    for term, coefficient in parts[1:]:
        op = "add" if coefficient > 0 else "sub"
        total = call(op, total, _scaled(term, abs(coefficient)))
    return total


def _scaled(term: Expr, coefficient: float) -> Expr:
    """coefficient · term, where the term carries no coefficient of its own."""
    if term == _ONE:
        return Const(coefficient)
    if coefficient == 1.0:
        return term
    return call("neg", term) if coefficient == -1.0 else call("mul", Const(coefficient), term)


# Products: a coefficient and {factor: power}.


def _factors(expr: Expr) -> tuple[float, Counter[Expr]]:
    """The coefficient and the powers of a product whose operands are canonical.

    A sum as a factor has its sign chosen: the coefficient of its last term is positive.
    """
    if isinstance(expr, Const):
        return expr.value, Counter()
    if not isinstance(expr, Call):
        return 1.0, Counter({expr: 1})
    try:
        if expr.op == "neg":
            coefficient, powers = _factors(expr.args[0])
            return -coefficient, powers
        if expr.op == "mul":
            (a, left), (b, right) = _factors(expr.args[0]), _factors(expr.args[1])
            return _times(a, b), left + right
        if expr.op == "square":
            coefficient, powers = _factors(expr.args[0])
            return _times(coefficient, coefficient), powers + powers
        if expr.op in _SUMS:
            return _signed_sum(expr)
    except OverflowError:
        pass
    return 1.0, Counter({expr: 1})


def _signed_sum(expr: Call) -> tuple[float, Counter[Expr]]:
    terms, constant = _terms(expr)
    if expr in terms or terms[max(terms, key=to_text)] > 0:
        return 1.0, Counter({expr: 1})
    return -1.0, Counter({_sum(*_added(({}, 0.0), (terms, constant), -1.0)): 1})


def _product(coefficient: float, powers: Counter[Expr]) -> Expr:
    """The expression of a product: the coefficient first, even powers as squares."""
    if coefficient == 0.0:
        return _ZERO
    for factor, power in powers.items():
        if power >= 2 and isinstance(factor, Call) and factor.op == "abs":
            scale, inner = _factors(factor.args[0])
            rest = Counter({f: p for f, p in powers.items() if f != factor})
            rest += Counter({factor: power % 2})
            rest += Counter({f: p * (power - power % 2) for f, p in inner.items()})
            return _product(_times(coefficient, scale ** (power - power % 2)), rest)
    body = _powers(powers)
    if coefficient == -1.0 and isinstance(body, Call) and body.op in _SUMS:
        return _sum(*_added(({}, 0.0), _terms(body), -1.0))
    return _scaled(body, coefficient)


def _powers(powers: Counter[Expr]) -> Expr:
    """x · y · square(z · …): the odd powers once, times the square of what is left."""
    odd = sorted((factor for factor, power in powers.items() if power % 2), key=to_text)
    half = Counter({factor: power // 2 for factor, power in powers.items() if power > 1})
    parts = [*odd, call("square", _powers(half))] if half else odd
    if not parts:
        return _ONE
    body = parts[0]
    for part in parts[1:]:
        body = call("mul", body, part)
    return body


# Operators with rules of their own.


def _unsigned(expr: Expr) -> Expr:
    """What an even operator may take in place of its operand: no sign, no absolute value."""
    coefficient, powers = _factors(expr)
    free: Counter[Expr] = Counter()
    for factor, power in powers.items():
        if isinstance(factor, Call) and factor.op == "abs":
            scale, inner = _factors(factor.args[0])
            coefficient = _times(coefficient, _finite(scale**power))
            free += Counter({f: p * power for f, p in inner.items()})
        else:
            free[factor] += power
    return _product(abs(coefficient), free)


def _absolute(operand: Expr) -> Expr:
    """|operand|, the scale taken out, nothing done to what cannot be negative."""
    coefficient, powers = _factors(operand)
    if all(
        power % 2 == 0 or (isinstance(factor, Call) and factor.op in _NON_NEGATIVE)
        for factor, power in powers.items()
    ):
        return _product(abs(coefficient), powers)
    return _scaled(call("abs", _product(1.0, powers)), abs(coefficient))


def _extremum(op: str, args: tuple[Expr, ...]) -> Expr:
    """min or max of a set: flattened, without repetitions, with one constant at most."""
    members = {member for arg in args for member in _members(op, arg)}
    constants = [member.value for member in members if isinstance(member, Const)]
    ordered: list[Expr] = sorted((m for m in members if not isinstance(m, Const)), key=to_text)
    if constants:
        ordered.append(Const(min(constants) if op == "min" else max(constants)))
    result = ordered[0]
    for member in ordered[1:]:
        result = call(op, result, member)
    return result


def _members(op: str, expr: Expr) -> list[Expr]:
    if isinstance(expr, Call) and expr.op == op:
        return [member for arg in expr.args for member in _members(op, arg)]
    return [expr]
