"""A task that costs nothing: what is left of a generation is the work of the search itself.

The error of a loss is its mean distance from the squared error at fixed points; "training" takes a
step, and every tenth loss fails. Proposals, duplicates, equal gradients, the
archive and the store are those of a real search.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from evoloss.discovery.arena import Final, Outcome, Tick, Tuned
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.loop_settings import LoopSettings
from evoloss.discovery.race import Racing
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.expr import Expr
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.lang.parse import parse
from evoloss.propose.evolution import Evolution, RandomSearch
from evoloss.propose.proposer import Proposer, Space

POINTS = np.linspace(-2.0, 2.0, 9)
TARGETS = POINTS[::-1] ** 2


@dataclass(frozen=True)
class ToySettings(LoopSettings):
    """Small generations, no local search and no finalists."""

    population: int = 5
    local_search: str = "none"
    rejection: bool = False
    finalists: int = 0


class Toy:
    """The arena. random: whether losses are drawn at random instead of bred."""

    output = "identity"

    def __init__(self, settings: ToySettings, random: bool = False) -> None:
        self.settings = settings
        self.random = random
        self.usual = parse("square(y - f)")
        self.wanted = self._values(self.usual)

    def threads(self) -> AbstractContextManager[None]:
        return nullcontext()

    def space(self, common: Mapping[str, Any]) -> Space:
        return Space(usual=self.usual, output="identity", **common)

    def proposer(self, space: Space) -> Proposer:
        return RandomSearch(space) if self.random else Evolution(space)

    def fingerprint(self, loss: Expr) -> str | None:
        return gradient_fingerprint(loss, "identity")

    def faults(self, losses: Sequence[Expr]) -> list[str | None]:
        return [None] * len(losses)

    def tune(self, losses: Sequence[Expr], tick: Tick) -> list[Tuned]:
        raise NotImplementedError("the toy's settings have no local search")

    def score(self, candidates: Sequence[Candidate], racing: Racing, tick: Tick) -> list[Outcome]:
        return [self._outcome(each) for each in candidates]

    def finals(self, candidates: Sequence[Candidate]) -> tuple[list[Final], int]:
        return [Final(each, each.error or 0.0) for each in candidates], len(candidates)

    def shown(self, error: float) -> float:
        return error

    def _outcome(self, candidate: Candidate) -> Outcome:
        error = float(np.mean(np.abs(self._values(candidate.loss) - self.wanted)))
        if not np.isfinite(error) or candidate.id % 10 == 9:
            return Outcome(Fate.FAILED, None, 1, "the toy's tenth")
        return Outcome(Fate.SCORED, error, 1)

    def _values(self, loss: Expr) -> np.ndarray:
        return np.asarray(numpy_value(loss, {"y": TARGETS, "f": POINTS}))
