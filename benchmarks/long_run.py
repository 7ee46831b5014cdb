"""A run of any number of candidates, written through the store's own interface without a search.

The losses are random trees; a tenth of them each are duplicates, rejected and failed.
"""

from pathlib import Path

import numpy as np
from toy import Toy, ToySettings

from evoloss.discovery.archive import Archive
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.lang.expr import Expr
from evoloss.propose.gp import GPSettings, random_expression, repair
from evoloss.store import Store

FATES = (*[Fate.SCORED] * 4, *[Fate.RACED_OUT] * 3, Fate.REJECTED, Fate.FAILED, Fate.DUPLICATE)


def write(directory: Path, candidates: int, population: int = 25, **settings: object) -> None:
    """A broken-off run of a toy search with so many candidates."""
    generations = candidates // population
    arena = Toy(
        ToySettings(population=population, generations=generations + 1, **settings)  # type: ignore[arg-type]
    )
    about = {"task": "toy", "network": "none", "metric": "distance", "output": "identity",
             "higher_is_better": False, "usual_loss": "square(y - f)"}  # fmt: skip
    archive = Archive(arena.settings, arena.fingerprint)
    with Store.create(
        directory, task=None, settings=arena.settings.to_json(), about=about
    ) as store:
        for number in range(generations):
            made = [_candidate(number, index, population) for index in range(population)]
            seconds = {"training": 1.0, "proposing": 0.1}
            store.commit(number, made, seconds, (), [archive.summary(each) for each in made])


def _candidate(number: int, index: int, population: int) -> Candidate:
    id = number * population + index
    rng = np.random.default_rng(id)
    expression = _loss(rng)
    fate = FATES[id % 10] if id >= 10 else Fate.SCORED
    error = float(rng.lognormal()) if fate in (Fate.SCORED, Fate.RACED_OUT) else None
    duplicate = fate is Fate.DUPLICATE
    return Candidate(
        id, number, index, "crossover", (max(0, id - population), max(0, id - 2 * population)),
        expression, f"form {0 if duplicate else id}", None, fate,
        "" if fate is Fate.SCORED else "as in a long search", error, 0 if duplicate else None, 500,
    )  # fmt: skip


def _loss(rng: np.random.Generator) -> Expr:
    settings = GPSettings()
    return repair(settings, random_expression(settings, rng, (2, 4)), rng)
