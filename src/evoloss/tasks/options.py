"""What a user can say about a task besides its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SPLIT_SEED = 0
"""The seed of every split unless told otherwise: searches with different seeds share the parts."""


@dataclass(frozen=True)
class Options:
    """The arguments of `load_task` that loaders read; None where the user left the choice to us."""

    network: str | None = None
    data_dir: Path | None = None
    target: str | None = None
    kind: Literal["regression", "classification"] | None = None
    drop_missing: bool = False
    seed: int = SPLIT_SEED
