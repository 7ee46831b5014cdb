"""The methods of a search: who proposes losses, and what settings go with it.

A method is a proposer and a line in this table (its settings stand in `presets.METHODS`, which
does not import what it names).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evoloss.discovery.presets import METHODS
from evoloss.discovery.settings import preset
from evoloss.discovery.workbench import Workbench
from evoloss.errors import UserError
from evoloss.propose.evolution import BestOfN, Evolution, RandomSearch
from evoloss.propose.fixed import known_losses, usual_loss
from evoloss.propose.ml3 import ML3
from evoloss.propose.proposer import Proposer, Space
from evoloss.propose.taylor import TaylorGLO

Factory = Callable[[Space, Workbench], Proposer]


def _zoo(space: Space, bench: Workbench) -> Proposer:
    return known_losses(space, bench.task.episodes.search(0).train.y.shape[1])


PROPOSERS: dict[str, Factory] = {
    "evomal": lambda space, bench: Evolution(space),
    "gplfl": lambda space, bench: Evolution(space),
    "random": lambda space, bench: RandomSearch(space),
    "best-of-n": lambda space, bench: BestOfN(space),
    "taylorglo": lambda space, bench: TaylorGLO(space),
    "ml3": lambda space, bench: ML3(space),
    "zoo": _zoo,
    "task-loss": lambda space, bench: usual_loss(space),
    "tuned-task-loss": lambda space, bench: usual_loss(space),
}
"""By the method's name: what makes its proposer."""


def register(name: str, factory: Factory, **settings: Any) -> None:
    """Adds a method of one's own: `factory(space, bench)` makes its proposer.

    settings: what it changes of the defaults, such as local_search="none".
    `evoloss.testing.check_method(name)` tells whether it keeps the loop's contracts.
    """
    if name in PROPOSERS:
        raise UserError(f"method '{name}' exists: choose another name")
    preset("fast", **settings)  # refuses what no search can have
    PROPOSERS[name] = factory
    METHODS[name] = dict(settings)


def proposer(space: Space, bench: Workbench) -> Proposer:
    """The proposer of the settings' method."""
    return PROPOSERS[bench.settings.method](space, bench)
