"""Workers for an unlearning search: what they are told, and how they make it a bench.

They load the model and the data as they were named, each once. What it takes models to find out,
the references and how the model and the retain model score, they are told: so the retain model is
in no worker, and all compare with the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from evoloss.engine.device import check_promised, resolved
from evoloss.execution.executor import Executor, Recipe
from evoloss.execution.journal import Journal
from evoloss.execution.shared_arrays import Arrays
from evoloss.execution.staff import Staff
from evoloss.execution.tensors import tensor
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.phase import Known
from evoloss.unlearn.plain import measured_of, plain_measured
from evoloss.unlearn.problem import Problem, load_problem
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import SHARD, Sharing
from evoloss.unlearn.trainings import Trainings

_SECONDS = 86_400.0
"""What an adapter may take for a part of its race, unless it is said: models differ in size."""


def check_workers(problem: Problem, staff: Staff) -> None:
    """Raises: UserError for a problem that workers cannot load."""
    advice = "write its sets to files and give their names"
    staff.check(problem.source, f"the data of '{problem.data.name}'", advice)


def usual_shard(settings: UnlearnSettings, staff: Staff) -> int | None:
    """How many adapters are one piece of work where the settings do not say it.

    So that a search has one history whoever does it, adapters are in shards in this process too.
    It has all of a generation in one where that takes a GPU to be fast, and where the settings say
    how many train side by side.
    """
    here = resolved(settings.device) != "cpu" or settings.together is not None
    return None if here and not staff.elsewhere else SHARD


def own_device(staff: Staff, settings: UnlearnSettings) -> str:
    """Where this process has its models: as the settings say, but with Ray as is asked of Ray."""
    if staff.ray is None:
        return resolved(settings.device)
    return resolved("auto") if staff.gpus_per_shard else "cpu"


def executor(
    bench: Bench, staff: Staff, *phases: str, journal: Journal | None = None
) -> AbstractContextManager[Executor]:
    """Where the work on some phases of this bench is done; closed at the end.

    As many workers as usual are as many as the bench is shared by, and none for data in memory.

    phases: their names; without any, all that a search works on. journal: where answers are kept,
    None for nowhere.
    """
    usable = bench.problem.source is not None and bench.language.device.type == "cpu"
    return staff.settled(bench.sharing.workers if usable else None).at_work(
        lambda: Trainings(bench), lambda: _recipe(bench, staff, phases or bench.selecting),
        bench.settings.shard, _SECONDS, journal,
    )  # fmt: skip


def _recipe(bench: Bench, staff: Staff, phases: tuple[str, ...]) -> Recipe:
    known = {name: Known.of(bench.phase(name)) for name in phases}
    # A worker proposes nothing: it need not know a method that was registered here, nor what a
    # language model may cost, which is refused where none is asked.
    settings = replace(
        bench.settings, method=UnlearnSettings.method, max_tokens=None, max_cost=None
    )
    arguments = {
        "source": bench.problem.source or {},
        "settings": settings.to_json(),
        "sharing": asdict(bench.sharing),
        "measured": {
            name: [plain_measured(each.original), plain_measured(each.retain)]
            for name, each in known.items()
        },
        "device": "cuda" if staff.gpus_per_shard else str(bench.language.device),
    }
    return Recipe(f"{__name__}:{trainings.__name__}", arguments, _references(known))


def trainings(
    source: Mapping[str, Any], settings: dict[str, Any], sharing: Mapping[str, int],
    measured: Mapping[str, Any], device: str, data: Arrays,
) -> Trainings:  # fmt: skip
    """In a worker: the workplace of a recipe."""
    known = {}
    for name, (original, retain) in measured.items():
        before = measured_of(original)
        assert before is not None  # it was written by `_recipe`
        kept = data.get(f"{name}.kept")
        forget = tensor(data[f"{name}.forget"])
        references = forget, None if kept is None else tensor(kept)
        known[name] = Known(*references, before, measured_of(retain))
    check_promised(device)
    bench = Bench(
        load_problem(**source), UnlearnSettings.from_json(settings), device=device, known=known
    )
    bench.sharing = Sharing(**sharing)
    return Trainings(bench)


def _references(known: Mapping[str, Known]) -> dict[str, np.ndarray[Any, Any]]:
    found = {f"{name}.forget": each.forget.numpy() for name, each in known.items()}
    kept = {f"{name}.kept": each.kept for name, each in known.items()}
    return found | {name: each.numpy() for name, each in kept.items() if each is not None}
