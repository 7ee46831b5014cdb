"""The settings of one search, and the two presets: `paper` (as published) and `fast`."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.errors import UserError, unknown


@dataclass(frozen=True)
class Settings:
    """Everything besides the task that decides a search's history.

    population, generations: of the genetic programming.
    local_search: how the edge weights φ are tuned, in `local_steps` steps of Adam at the rate
        `meta_lr`: by gradients through training (`unrolled`), at its end (`implicit`), by evolution
        strategies (`es`), or not (`none`).
    unroll: training steps that tuning looks through; None takes the local search's own.
    implicit_solver: `cg` or `neumann`, of at most `implicit_terms` Hessian-vector products, with
        `implicit_damping` added to the Hessian's eigenvalues.
    es_pairs, es_sigma: how many φ ± σε are tried, and how far away.
    fitness_steps: base training steps before the validation score; None takes the task's own.
    fitness_seeds: how many trainings one fitness averages over; None takes more where there is
        little validation data, each on another split.
    rejection_steps: Adam steps of the rejection protocol; None takes the task's own.
    rejection: whether losses that do not lower the error when they are minimised are dropped.
    reject_first: also test a loss before it is tuned.
    equivalence: take over the result of a loss with the same gradients.
    canonical: whether duplicates are found by canonical form or only by equal text.
    racing: train all to a part of the steps, then only the better half, and so on.
    seeded: whether the first generation holds the task's usual loss, so that a search has at
        least that to tune and to cross.
    retries: how often a seen offspring is replaced by a new variation.
    finalists: the best so many are scored again on other seeds and the best mean wins; 0 for none.
    final_seeds: how many initialisations the finalists are scored on.
    rescale: whether each finalist is also tried at multiples, which are other learning rates.
    tune_momentum: whether finalists are also tried at other momenta of the base training.
    weights: what local search tunes: the `edges`, or the `constants` of the proposed losses.
    max_steps, max_seconds: no generation begins once so many gradient steps or seconds are spent.
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
    unroll: int | None = None
    meta_lr: float = 1e-3
    implicit_solver: str = "cg"
    implicit_terms: int = 10
    implicit_damping: float = 0.1
    es_pairs: int = 8
    es_sigma: float = 0.05
    fitness_steps: int | None = None
    fitness_seeds: int | None = None
    rejection_steps: int | None = None
    rejection: bool = True
    reject_first: bool = True
    equivalence: bool = True
    canonical: bool = True
    racing: bool = True
    seeded: bool = True
    retries: int = 5
    finalists: int = 10
    final_seeds: int = 5
    rescale: bool = True
    tune_momentum: bool = False
    weights: str = "edges"
    max_steps: int | None = None
    max_seconds: float | None = None
    stacking: str = "auto"

    def __post_init__(self) -> None:
        least = {"population": 1, "generations": 1, "local_steps": 1, "unroll": 1,
                 "fitness_seeds": 1, "final_seeds": 1, "fitness_steps": 1, "rejection_steps": 1,
                 "implicit_terms": 1, "implicit_damping": 0, "es_pairs": 1}  # fmt: skip
        for name, minimum in least.items():
            given = getattr(self, name)
            if given is not None and not given >= minimum:
                raise UserError(f"{name} is {given}: give at least {minimum}")
        if not self.es_sigma > 0:
            raise UserError(f"es_sigma is {self.es_sigma}: give a number above 0, such as 0.05")
        for name, known in (
            ("method", tuple(METHODS)),
            ("weights", WEIGHTS),
            ("local_search", (*LOCAL_SEARCHES, "none")),
            ("implicit_solver", SOLVERS),
            ("stacking", STACKINGS),
            ("preset", tuple(PRESETS)),
        ):
            if getattr(self, name) not in known:
                raise unknown(name.replace("_", " "), getattr(self, name), known)

    @property
    def inner_steps(self) -> int:
        """Training steps that one step of local search looks through."""
        return self.unroll or LOCAL_SEARCHES[self.local_search].unroll

    @property
    def tuning_steps(self) -> int:
        """Training steps that the tuning of one candidate takes."""
        trainings = LOCAL_SEARCHES[self.local_search].trainings(self)
        return self.local_steps * self.inner_steps * trainings

    @property
    def local_weights(self) -> Literal["edges", "constants"]:
        """`weights`, as a type."""
        return "constants" if self.weights == "constants" else "edges"

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
WEIGHTS = ("edges", "constants")
SOLVERS = ("cg", "neumann")
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
        "fitness_seeds": 1,
        "finalists": 0,
        "rescale": False,
    },
}
"""What a preset changes of the defaults; `paper` turns every saving off."""


def preset(name: str, **changes: Any) -> Settings:
    """A preset and a method with changes on top. Raises UserError for unknown names."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    method = changes.get("method", Settings.method)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return replace(Settings(preset=name), **{**PRESETS[name], **METHODS[method], **changes})
