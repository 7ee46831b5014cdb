"""What each method and each preset changes of a search's defaults."""

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "evomal": {},
    "gplfl": {"local_search": "none"},
    "random": {},
    "best-of-n": {},
    "taylorglo": {"local_search": "none", "weights": "constants", "seeded": False,
                  "rejection": False},
    # A later generation proposes tuned networks, which are equivalent to what they came from.
    "ml3": {"weights": "constants", "seeded": False, "rejection": False, "equivalence": False},
    "zoo": {"local_search": "none", "weights": "constants", "rejection": False},
    "task-loss": {
        "population": 1, "generations": 1, "local_search": "none", "rejection": False,
        "rescale": False,
    },
    "tuned-task-loss": {
        "population": 1, "generations": 1, "local_search": "none", "rejection": False,
        "tune_momentum": True,
    },
}  # fmt: skip
"""Every method, and what it changes of the defaults; its proposer is in `methods`."""

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "paper": {
        "reject_first": False,
        "equivalence": False,
        "canonical": False,
        "racing": False,
        "seeded": False,
        "retries": 0,
        "fitness_seeds": 1,
        "finalists": 0,
        "rescale": False,
    },
}
"""What a preset changes of the defaults; `paper` turns every saving off."""
