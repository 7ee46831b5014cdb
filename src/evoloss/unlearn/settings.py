"""The settings of a search for an unlearning loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evoloss.discovery.loop_settings import LoopSettings, check_device_name
from evoloss.errors import UserError, unknown
from evoloss.unlearn.adapters import LoraSettings
from evoloss.unlearn.metrics.scores import OBJECTIVES
from evoloss.unlearn.schedule import KINDS, Schedule

METHODS = ("gp", "llm", "mixture", "random", "zoo")
"""Who proposes the losses."""
LOCAL_SEARCHES = ("none", "unrolled", "es")
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class UnlearnSettings(LoopSettings):
    """Everything besides model and data that decides a search's history.

    local_search: how the constants inside a loss are tuned, in `local_steps` steps of Adam at the
        rate `meta_lr`: by the one-step hyper-gradient through the adapter's training (`unrolled`),
        by evolution strategies (`es`), or not (`none`).
    epochs: the most that a loss may ask for, passes over the forget set; who asks for fewer trains
        for less. batch: sequences of each set a step. lr: of AdamW.
    schedule: how the rate runs, `linear`ly to 0, as half a `cosine` to 0, or `constant`; warmup:
        the share of a training's steps in which it rises from 0 first.
    rank, alpha: of the adapters. targets: the layers that have them, names or what these end in,
        separated by commas; None for all linear layers but the head.
    context: the most tokens of a sequence.
    objective: what selects, on the search part of the data.
    forget_only: train without the retain set, which then only tells what is kept.
    test_share: the share of the questions to forget that no choice looks at. Half as large a
        share of those to keep is measured by the search, and another by the test; the rest is
        trained on.
    finalists: the best candidates, which are scored again on `final_seeds` other adapters each;
        final_rates: the multiples of the learning rate that they are tried with on the first.
    together: how many adapters train side by side; None tries out what is fastest.
    shard: how many adapters are one piece of work, side by side on one torch thread; None for all
        of a generation, as suits this machine. Workers want a number (see docs/scaling.md); the
        history depends on it, and not on how many workers there are.
    device: of the models, cpu, cuda or cuda:1; auto takes a GPU if torch sees one.
    precision: of the model's own weights, float32 or bf16; None takes bf16 on a GPU and float32 on
        the CPU, and the run keeps it. Adapters, losses and optimisers are in float32 anywhere.
    texts: how many answers of the retain set are generated for a score; all of the forget set are.
    """

    method: str = "gp"
    population: int = 8
    generations: int = 5
    local_search: str = "none"
    weights: str = "constants"
    finalists: int = 4
    epochs: int = 5
    batch: int = 8
    lr: float = 5e-4
    schedule: str = "linear"
    warmup: float = 0.0
    clip: float = 1.0
    rank: int = 8
    alpha: float = 32.0
    targets: str | None = None
    context: int = 512
    objective: str = "balance"
    forget_only: bool = False
    test_share: float = 0.5
    final_seeds: int = 3
    final_rates: tuple[float, ...] = (1.0,)
    local_steps: int = 24
    meta_lr: float = 0.05
    es_pairs: int = 4
    es_sigma: float = 0.1
    together: int | None = None
    shard: int | None = None
    device: str = "auto"
    precision: str | None = None
    texts: int | None = 32

    def __post_init__(self) -> None:
        self.at_least(
            seed=0, population=1, generations=1, finalists=0, epochs=1, batch=1, rank=1, context=8,
            final_seeds=1, local_steps=1, es_pairs=1, together=1, shard=1,
            texts=1,
        )  # fmt: skip
        self.check_budgets(asks_a_language_model=self.method in ("llm", "mixture"))
        for name in ("lr", "clip", "alpha", "meta_lr", "es_sigma"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: give a number above 0")
        if not self.final_rates or not min(self.final_rates) > 0:
            raise UserError(f"final_rates is {self.final_rates}: give numbers above 0")
        for name, known in (
            ("method", METHODS),
            ("local_search", LOCAL_SEARCHES),
            ("objective", OBJECTIVES),
            ("schedule", KINDS),
        ):
            if getattr(self, name) not in known:
                raise unknown(name.replace("_", " "), getattr(self, name), known)
        if not 0 <= self.warmup < 1:
            raise UserError(
                f"warmup is {self.warmup}: give a share of the steps, at least 0 and below 1"
            )
        if self.targets is not None and not all(self._targets):
            raise UserError(
                f"targets is '{self.targets}': give names of layers, separated by commas, or none"
            )
        check_device_name(self.device)
        if self.precision not in (None, *PRECISIONS):
            raise unknown("precision", self.precision, PRECISIONS)

    @property
    def final_trainings(self) -> int:
        """How many adapters are trained for the finalists, after all candidates."""
        return self.finalists * (len(self.final_rates) + self.final_seeds - 1)

    @property
    def lora(self) -> LoraSettings:
        """The adapters."""
        return LoraSettings(self.rank, self.alpha, self._targets or None)

    def schedule_of(self, steps: int, lr: float) -> Schedule:
        """A training of so many steps at this rate."""
        return Schedule(steps, lr, self.clip, kind=self.schedule, warmup=self.warmup)

    @property
    def _targets(self) -> tuple[str, ...]:
        return () if self.targets is None else tuple(map(str.strip, self.targets.split(",")))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> UnlearnSettings:
        """The settings that `to_json` wrote."""
        found = super().from_json(data)
        return replace(found, final_rates=tuple(found.final_rates))


def unlearn_settings(**changes: Any) -> UnlearnSettings:
    """The defaults with changes. Raises: UserError for an unknown name or a value out of range."""
    known = set(UnlearnSettings.__dataclass_fields__)
    for each in changes:
        if each not in known:
            raise unknown("setting", each, sorted(known))
    return UnlearnSettings(**changes)
