"""What the measured values mean: the row of the metrics' table behind each name, and its aim."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from evoloss.unlearn.metrics.table import METRICS, Metric

_OF_A_SET = {
    "_truth_ratio": "truth_ratio",
    "_prob": "prob",
    "_rouge": "rouge_l_recall",
    "_verbmem": "rouge_l_f1",
    "_knowmem": "rouge_l_f1",
}
"""By the end of a name that begins with a set: the metric that is measured on it."""
_TO_FORGET = ("forget", "wmdp_")
_PLAIN = ("forget", "retain", "trained")
"""Sets whose answers are measured by themselves, whether or not there are alternatives."""


def measured_names(record: Mapping[str, Any]) -> list[str]:
    """The metrics that occur in the record of an evaluation, in their order."""
    values = [*record["models"].values(), *(v for row in record["rows"] for v in row["values"])]
    return list(dict.fromkeys(name for each in values for name in each or {}))


def legend(names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Definition, aim, range (None: without end) and source of what is measured, by its name."""
    found = {}
    for name in names:
        row = _row(name, names)
        aims = (row.on_forget, row.on_rest) if _to_forget(name) else (row.on_rest, row.on_forget)
        found[name] = {
            "definition": row.definition,
            "better": str(next(aim for aim in aims if aim)),
            "range": [end if math.isfinite(end) else None for end in row.range],
            "source": row.source,
        }
    return found


def _row(name: str, names: Collection[str]) -> Metric:
    """The row of the table; a name that is of no set and not in it is one of questions."""
    if name in METRICS:
        return METRICS[name]
    for end, metric in _OF_A_SET.items():
        if name.endswith(end):
            of = name.removesuffix(end)
            compared = f"{of}_truth_ratio" in names and of not in _PLAIN
            return METRICS["prob_among_options" if metric == "prob" and compared else metric]
    return METRICS["multiple_choice"]


def _to_forget(name: str) -> bool:
    return name.startswith(_TO_FORGET) or name in ("extraction_strength", "exact_memorisation")
