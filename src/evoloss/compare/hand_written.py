"""The hand-written losses of a comparison: tuned once a seed, and kept in a file beside its runs.

The file is written whenever one has been tuned, for that takes as long as a search, and again when
they have been evaluated.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from evoloss.compare.unlearning_plan import UnlearnPlan, comparable
from evoloss.errors import NoWorkers, UserError
from evoloss.execution.executor import Executor
from evoloss.unlearn import identity
from evoloss.unlearn.contenders import Contender, Effort, contender, tuned
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.settings import UnlearnSettings

if TYPE_CHECKING:
    from evoloss.unlearn.bench import Bench

Tell = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done."""
Record = dict[str, Any]


def tune(bench: Bench, name: str, effort: Effort, tell: Tell, where: Executor) -> Record:
    """What is kept of a hand-written loss: its best setting, or why none could be trained."""
    begun = time.perf_counter()
    try:
        found = tuned(bench, name, effort, partial(tell, f"tuning {name}"), where)
    except NoWorkers:
        raise  # the loss is not to blame
    except UserError as error:
        bench.say(str(error))
        nothing = {"score": None, "trainings": 0, "steps": 0, "seconds": 0.0, "row": None}
        return {"reason": str(error), **nothing}
    best = found.contender
    return {
        "score": found.score,
        "trainings": found.trainings,
        "steps": found.steps,
        "seconds": time.perf_counter() - begun,
        "tuned": {"constants": dict(best.constants), "epochs": best.epochs, "lr": best.lr},
    }


def unevaluated(kept: Mapping[str, Record], retain: bool) -> list[Contender]:
    """Those that are tuned and not yet evaluated, as they were tuned.

    retain: whether losses are of what is to be kept, too.
    """
    waiting = {
        name: each["tuned"] for name, each in kept.items() if "tuned" in each and "row" not in each
    }
    return [
        replace(contender(name, retain, **each["constants"]), epochs=each["epochs"], lr=each["lr"])
        for name, each in waiting.items()
    ]


def read(plan: UnlearnPlan, seed: int) -> dict[str, Record]:
    """The hand-written losses of a seed that are tuned, by name; `row`: of those evaluated."""
    kept: dict[str, Record] = _file(plan, seed).get("losses", {})
    return kept


def _file(plan: UnlearnPlan, seed: int) -> Record:
    path = plan.file(seed)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["losses"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"cannot read '{path}': delete it, and its losses are tuned anew") from None
    return dict(found)


def _circumstances(plan: UnlearnPlan, problem: Problem, seed: int) -> Record:
    """What the numbers of a file of hand-written losses depend on, as plain data."""
    settings = plan.cells_of(seed)[0].settings
    return _plain(
        {
            "task": problem.data.name,
            "source": problem.source,
            "digests": identity.of_data(problem.data),
            "settings": _own(settings),
            "trainings": plan.trainings(settings),
            "eval_seeds": plan.eval_seeds,
        }
    )


def _own(settings: UnlearnSettings) -> Record:
    """What matters to hand-written losses, which nobody proposes."""
    own = comparable(settings).to_json()
    del own["method"]
    return _plain(own)


def _plain(data: Record) -> Record:
    """As it is read from a file."""
    return dict(json.loads(json.dumps(data)))


def check(plan: UnlearnPlan, problem: Problem, seed: int) -> None:
    """Raises: UserError where the file of a seed was made with something else, or is damaged."""
    file, wanted = _file(plan, seed), _circumstances(plan, problem, seed)
    if "settings" in file:  # one that an earlier version did not have was what is now its default
        file["settings"] = {**_own(UnlearnSettings()), **file["settings"]}
    if file and any(file.get(name) != value for name, value in wanted.items()):
        raise UserError(
            f"'{plan.file(seed)}' was made with another model, data, budget or settings: "
            "choose another --out"
        )


def keep(plan: UnlearnPlan, problem: Problem, seed: int, kept: Mapping[str, Record]) -> None:
    """Writes the file of a seed, whole or not at all."""
    path = plan.file(seed)
    partial_file = path.with_name(f"{path.name}.partial")
    text = json.dumps({**_circumstances(plan, problem, seed), "losses": kept}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(text, encoding="utf-8")
        os.replace(partial_file, path)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}") from error
