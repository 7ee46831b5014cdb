"""exp, log and tanh against fifty digits of mpmath."""

import math

import mpmath
import numpy as np
import pytest

from evoloss.engine import elementary

SCALES = (1e-300, 1e-20, 1e-9, 1e-8, 1e-3, 0.3, 1.0, 10.0, 300.0)
EDGES = [709.7827, 709.79, -708.4, -744.0, -745.0, 5e-324, 1e-310, 2.2250738585072014e-308,
         7.450580596923828e-09, 0.5, 1.0, math.sqrt(0.5), math.sqrt(2.0), 20.0, 1e300]  # fmt: skip


def inputs() -> list[float]:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.normal(size=200) * scale for scale in SCALES])
    return [*drawn.tolist(), *EDGES, *(-edge for edge in EDGES)]


@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_within_four_units_in_the_last_place(name: str) -> None:
    function = getattr(elementary, name)
    with mpmath.workdps(50):
        for x in inputs():
            x = abs(x) if name == "log" else x
            exact = getattr(mpmath.mp, name)(mpmath.mpf(x))
            nearest = float(exact)
            found = function(x)
            if math.isinf(nearest):
                assert found == nearest, x
            else:
                unit = math.ulp(nearest)
                assert abs(mpmath.mpf(found) - exact) <= 4 * unit, (x, found, nearest)


def test_the_special_values() -> None:
    nan, inf = math.nan, math.inf
    assert [elementary.exp(x) for x in (0.0, inf, -inf)] == [1.0, inf, 0.0]
    assert [elementary.log(x) for x in (1.0, 0.0, inf)] == [0.0, -inf, inf]
    assert [elementary.tanh(x) for x in (0.0, inf, -inf)] == [0.0, 1.0, -1.0]
    assert math.copysign(1.0, elementary.tanh(-0.0)) == -1.0
    assert all(math.isnan(f(nan)) for f in (elementary.exp, elementary.log, elementary.tanh))
    assert math.isnan(elementary.log(-1.0))
