"""The settings of one search, and the two presets: `paper` (as published) and `fast`."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from evoloss.discovery.local_searches import LOCAL_SEARCHES
from evoloss.discovery.loop_settings import LoopSettings, check_device_name
from evoloss.discovery.presets import METHODS, PRESETS
from evoloss.errors import UserError, unknown


@dataclass(frozen=True)
class Settings(LoopSettings):
    """Everything besides the task that decides a search's history.

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
    rejection_steps: Adam steps of the rejection protocol, which drops losses that do not lower the
        error when they are minimised; None takes the task's own.
    final_seeds: how many initialisations the finalists are scored on.
    rescale: whether each finalist is also tried at multiples, which are other learning rates.
    tune_momentum: whether finalists are also tried at other momenta of the base training.
    device: where they are: cpu, cuda, cuda:1 and so on, or auto for a GPU where there is one.
    memory: GiB of it that networks may take, which limits how many are trained together; None
        takes 80 % of what is free on a GPU, and sets no limit on the CPU.
    precision: of the base networks' matrix products, float32 or bf16; see docs/scaling.md.
    stacking: how base networks are batched: auto, dense, vmap or loop.
    shard: how many losses are tuned or trained together, each shard on one torch thread; None for
        all of a generation, on as many threads as suit them. The history of networks that are no
        perceptrons depends on it, and not on who does the work: a search that is not told takes a
        number that suits workers, also without any (see docs/scaling.md).
    """

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
    final_seeds: int = 5
    rescale: bool = True
    tune_momentum: bool = False
    device: str = "cpu"
    memory: float | None = None
    precision: str = "float32"
    stacking: str = "auto"
    shard: int | None = None

    def __post_init__(self) -> None:
        self.at_least(
            population=1, generations=1, local_steps=1, unroll=1, fitness_seeds=1, final_seeds=1,
            fitness_steps=1, rejection_steps=1, implicit_terms=1, implicit_damping=0, es_pairs=1,
            shard=1,
        )  # fmt: skip
        self.check_budgets(asks_a_language_model=False)
        if self.memory is not None and not self.memory > 0:
            raise UserError(f"memory is {self.memory:g} GiB: give a number above 0")
        if not self.es_sigma > 0:
            raise UserError(f"es_sigma is {self.es_sigma}: give a number above 0, such as 0.05")
        check_device_name(self.device)
        for name, known in (
            ("method", tuple(METHODS)),
            ("weights", WEIGHTS),
            ("local_search", (*LOCAL_SEARCHES, "none")),
            ("implicit_solver", SOLVERS),
            ("stacking", STACKINGS),
            ("precision", PRECISIONS),
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


WEIGHTS = ("edges", "constants")
SOLVERS = ("cg", "neumann")
PRECISIONS = ("float32", "bf16")
STACKINGS = ("auto", "dense", "vmap", "loop")


def preset(name: str, **changes: Any) -> Settings:
    """A preset and a method with changes on top. Raises UserError for unknown names."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    method = changes.get("method", Settings.method)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return replace(Settings(preset=name), **{**PRESETS[name], **METHODS[method], **changes})
