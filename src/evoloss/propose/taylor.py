"""TaylorGLO: the coefficients of a Taylor polynomial by CMA-ES.

Gonzalez and Miikkulainen 2021, "Optimizing loss functions through multi-variate Taylor polynomial
parameterization": third order in the target and the prediction around a point that is found too,
without the terms that do not depend on the prediction. The polynomial is written here as in the
paper; the search itself is the library `cmaes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evoloss.lang.expr import Const, Expr, Input, call
from evoloss.propose.proposer import Individual, Proposal, Space

if TYPE_CHECKING:
    from cmaes import CMA

COEFFICIENTS = 8
SIGMA = 1.2


def polynomial(theta: Sequence[float]) -> Expr:
    """−[θ₂ q + θ₃ q²/2 + θ₄ q³/6 + θ₅ p q + θ₆ p q²/2 + θ₇ p² q/2], p = y − θ₀, q = f − θ₁."""
    if len(theta) != COEFFICIENTS:
        raise ValueError(f"{COEFFICIENTS} coefficients wanted, {len(theta)} given")
    p = call("sub", Input("y"), Const(float(theta[0])))
    q = call("sub", Input("f"), Const(float(theta[1])))
    squares = call("square", p), call("square", q)
    monomials = (
        (theta[2], q),
        (theta[3] / 2.0, squares[1]),
        (theta[4] / 6.0, call("mul", q, squares[1])),
        (theta[5], call("mul", p, q)),
        (theta[6] / 2.0, call("mul", p, squares[1])),
        (theta[7] / 2.0, call("mul", squares[0], q)),
    )
    total: Expr | None = None
    for coefficient, monomial in monomials:
        term = call("mul", Const(-float(coefficient)), monomial)
        total = term if total is None else call("add", total, term)
    assert total is not None  # there are six monomials
    return total


class TaylorGLO:
    """CMA-ES around 0 with the published step size; it goes by ranks alone."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._cma = self._start()
        self._asked: list[NDArray[np.float64]] = []

    def ask(self, generation: int) -> Sequence[Proposal]:
        """Coefficients drawn by CMA-ES, as polynomials."""
        self._asked = self._draw(generation)
        return tuple(Proposal(polynomial(theta.tolist()), "cma-es") for theta in self._asked)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Adapts mean and covariance; what failed is the worst."""
        # A stored generation is told without having been asked for in this process.
        drawn = self._asked or self._draw(generation)
        worst = max((each.error for each in results if each.error is not None), default=0.0) + 1.0
        self._cma.tell(
            [
                (theta, worst if each.error is None or math.isnan(each.error) else each.error)
                for theta, each in zip(drawn, results, strict=True)
            ]
        )
        self._asked = []

    def _start(self) -> CMA:
        from cmaes import CMA

        return CMA(
            mean=np.zeros(COEFFICIENTS), sigma=SIGMA, population_size=self.space.population, seed=0
        )

    def _draw(self, generation: int) -> list[NDArray[np.float64]]:
        """One solution a slot, each from a generator of its own."""
        drawn = []
        for index in range(self.space.population):
            self._cma.reseed_rng(int(self.space.random(generation, index).integers(2**31)))
            drawn.append(self._cma.ask())
        return drawn
