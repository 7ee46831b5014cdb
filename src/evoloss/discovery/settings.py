"""The settings of one search, and the two presets: `paper` (as published) and `fast`."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from evoloss.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Everything besides the task that decides a search's history.

    population, generations: of the genetic programming.
    local_search: `unrolled` (gradient descent on the edge weights φ through `unroll` training
        steps, `local_steps` of them at Adam's rate `meta_lr`) or `none`.
    fitness_steps: base training steps before the validation score; None takes the task's own.
    fitness_seeds: how many initialisations one fitness averages over.
    rejection_steps: Adam steps of the rejection protocol; None takes the task's own.
    reject_first: also test a loss before it is tuned.
    equivalence: take over the result of a loss with the same gradients.
    canonical: whether duplicates are found by canonical form or only by equal text.
    racing: train all to a part of the steps, then only the better half, and so on.
    seeded: whether the first generation holds the task's usual loss, so that a search has at
        least that to tune and to cross.
    retries: how often a seen offspring is replaced by a new variation.
    finalists: the best so many are scored again on other seeds and the best mean wins; 0 for none.
    rescale: whether each finalist is also tried at multiples, which are other learning rates.
    stacking: how base networks are batched: auto, dense, vmap or loop.
    """

    method: str = "evomal"
    preset: str = "fast"
    seed: int = 0
    population: int = 25
    generations: int = 50
    parsimony: float = 1.4
    local_search: str = "unrolled"
    local_steps: int = 250
    unroll: int = 1
    meta_lr: float = 1e-3
    fitness_steps: int | None = None
    fitness_seeds: int = 1
    rejection_steps: int | None = None
    reject_first: bool = True
    equivalence: bool = True
    canonical: bool = True
    racing: bool = True
    seeded: bool = True
    retries: int = 5
    finalists: int = 10
    rescale: bool = True
    stacking: str = "auto"

    def __post_init__(self) -> None:
        least = {"population": 2, "generations": 1, "local_steps": 1, "unroll": 1,
                 "fitness_seeds": 1, "fitness_steps": 1, "rejection_steps": 1}  # fmt: skip
        for name, minimum in least.items():
            given = getattr(self, name)
            if given is not None and given < minimum:
                raise UserError(f"{name} is {given}: give at least {minimum}")
        for name, known in (
            ("method", METHODS),
            ("local_search", LOCAL_SEARCHES),
            ("stacking", STACKINGS),
            ("preset", tuple(PRESETS)),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"unknown {name.replace('_', ' ')} '{getattr(self, name)}': "
                    f"choose {' or '.join(known)}"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Settings":
        """The settings that `to_json` wrote; names of another version are refused."""
        foreign = set(data) - {field.name for field in fields(cls)}
        if foreign:
            raise UserError(
                f"the run has settings this version does not know: {', '.join(sorted(foreign))}"
            )
        return cls(**data)


METHODS = ("evomal",)
LOCAL_SEARCHES = ("unrolled", "none")
STACKINGS = ("auto", "dense", "vmap", "loop")

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "paper": {
        "reject_first": False,
        "equivalence": False,
        "canonical": False,
        "racing": False,
        "seeded": False,
        "retries": 0,
        "finalists": 0,
        "rescale": False,
    },
}
"""What a preset changes of the defaults; `paper` turns every saving off."""


def preset(name: str, **changes: Any) -> Settings:
    """The settings of a preset with changes on top. Raises UserError for unknown names."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}': choose {' or '.join(PRESETS)}")
    return replace(Settings(preset=name), **{**PRESETS[name], **changes})
