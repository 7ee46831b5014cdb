"""What a running search tells whoever watches it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evoloss.discovery.candidate import Candidate, Fate


@dataclass(frozen=True)
class Progress:
    """The state of a search, sent at the start of each stage and after each generation.

    generation: 1-based, the one in work or just finished; stage: what is being done now
    (`tuning`, `training`, …, or `saved` after the generation's transaction).
    best: the best scored candidate so far; fates: counts over all candidates so far.
    seconds: since this process began; seconds_left: estimate.
    """

    generation: int
    generations: int
    stage: str
    best: Candidate | None
    best_shown: float | None
    fates: Mapping[Fate, int]
    candidates: int
    per_second: float
    seconds: float
    seconds_left: float | None


Observer = Callable[[Progress], None]
