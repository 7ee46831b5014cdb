"""What measured values are, in words, for whoever is shown them by their names."""

from __future__ import annotations

from collections.abc import Collection

from evoloss.unlearn.metrics.scores import OBJECTIVE_PARTS
from evoloss.unlearn.metrics.table import METRICS, Aim, Metric

_KINDS = {
    "_prob": "prob",
    "_rouge": "rouge_l_recall",
    "_truth_ratio": "truth_ratio",
    "_verbmem": "rouge_l_f1",
    "_knowmem": "rouge_l_f1",
}
"""By the end of a value's name, the metric that it is on the set which the name begins with."""
_TO_FORGET = ("forget", "wmdp_")
_LEADING = ("forgetting", "utility_kept", "balance", "forget_quality", "model_utility")


def meanings(names: Collection[str], objective: str) -> dict[str, str]:
    """The direction and, once for each metric, the definition of values of such names.

    The objective comes first, then its parts, and then what sums up others.
    """
    leading = (objective, *OBJECTIVE_PARTS[objective], *_LEADING)
    order = dict.fromkeys([*(each for each in leading if each in names), *names])
    found: dict[str, str] = {}
    defined: set[str] = set()
    for name in order:
        row, aim = row_of(name, names)
        found[name] = f"{aim} is better" + ("" if row.name in defined else f"; {row.definition}")
        defined.add(row.name)
    return found


def row_of(name: str, names: Collection[str]) -> tuple[Metric, Aim | None]:
    """The metric that a value is, and where it should go. names: of all values beside it."""
    if name in METRICS:
        row = METRICS[name]
        return row, row.on_forget or row.on_rest
    end = next((each for each in _KINDS if name.endswith(each)), "")
    row = METRICS[_KINDS.get(end, "multiple_choice")]
    others = name.removesuffix(end)
    # As `recipes` has it: alternatives are there where there is a truth ratio.
    if end == "_prob" and others not in ("forget", "retain", "trained"):
        row = METRICS["prob_among_options"] if f"{others}_truth_ratio" in names else row
    return row, row.on_forget if name.startswith(_TO_FORGET) else row.on_rest
