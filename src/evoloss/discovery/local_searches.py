"""The local searches by name; a search looks here for the one that its settings ask for.

Free of torch until one is made, so that settings can be checked and help be printed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoloss.discovery.settings import Settings
    from evoloss.local_search.inner import HyperGradient


@dataclass(frozen=True)
class LocalSearch:
    """A row of the table.

    make: the hyper-gradient as some settings want it. unroll: inner training steps where the
    settings leave them open. trainings: how many inner trainings one estimate takes.
    """

    make: Callable[[Settings], HyperGradient]
    unroll: int = 1
    trainings: Callable[[Settings], int] = lambda settings: 1


def _unrolled(settings: Settings) -> HyperGradient:
    from evoloss.local_search.unrolled import hypergradient

    return hypergradient


def _implicit(settings: Settings) -> HyperGradient:
    from evoloss.local_search.implicit import Implicit

    return Implicit(settings.implicit_solver, settings.implicit_terms, settings.implicit_damping)


def _es(settings: Settings) -> HyperGradient:
    from evoloss.local_search.es import EvolutionStrategies

    return EvolutionStrategies(settings.es_pairs, settings.es_sigma)


LOCAL_SEARCHES: dict[str, LocalSearch] = {
    "unrolled": LocalSearch(_unrolled),
    # The theorem holds where training has come to rest, so it gets some way to go.
    "implicit": LocalSearch(_implicit, unroll=20),
    "es": LocalSearch(_es, trainings=lambda settings: 2 * settings.es_pairs),
}
