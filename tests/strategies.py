"""Hypothesis strategies that several test modules share: random expressions of every operator."""

from hypothesis import strategies as st

from evoloss.lang.expr import Call, Const, Expr, Input
from evoloss.lang.ops import OPERATORS, Kind
from evoloss.lang.types import SUPERVISED, Signature

ANY_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
DYADIC = st.integers(-24, 24).map(lambda n: n / 8)
"""Numbers whose sums and products are exact, so that folding constants does not round."""

NUMBERS = tuple(row for row in OPERATORS.values() if row.kind is Kind.ELEMENTWISE)
COMPARISONS = tuple(row for row in OPERATORS.values() if row.kind is Kind.COMPARISON)


def expressions(
    signature: Signature = SUPERVISED,
    constants: st.SearchStrategy[float] = ANY_NUMBER,
    max_leaves: int = 12,
) -> st.SearchStrategy[Expr]:
    """Well-typed numbers (no masks) over all element-wise operators, comparisons and where.

    They need not use every input of the signature.
    """
    leaves = st.one_of(
        st.sampled_from([Input(name) for name in signature.inputs]), constants.map(Const)
    )
    return st.recursive(leaves, _calls, max_leaves=max_leaves)


def losses(
    constants: st.SearchStrategy[float] = ANY_NUMBER, max_leaves: int = 12
) -> st.SearchStrategy[Expr]:
    """Expressions that are supervised losses: both y and f occur."""
    y_and_f = st.sampled_from([Call(op, (Input("y"), Input("f"))) for op in ("sub", "mul", "aq")])
    pairs = st.tuples(y_and_f, expressions(SUPERVISED, constants, max_leaves))
    return st.sampled_from(["add", "mul", "max"]).flatmap(
        lambda op: pairs.map(lambda pair: Call(op, pair))
    )


def _calls(numbers: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    """One operator over numbers; a comparison occurs only as the first operand of where."""
    plain = st.sampled_from(NUMBERS).flatmap(
        lambda row: st.tuples(*[numbers] * row.arity).map(lambda args: Call(row.name, args))
    )
    mask = st.builds(
        lambda row, a, b: Call(row.name, (a, b)), st.sampled_from(COMPARISONS), numbers, numbers
    )
    chosen = st.builds(lambda m, a, b: Call("where", (m, a, b)), mask, numbers, numbers)
    return st.one_of(plain, plain, plain, chosen)
