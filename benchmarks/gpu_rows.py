"""What the parts of `gpu.py` share: rows of its table, seconds of a device, and matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from evoloss.engine.device import finish

ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """Where and how much is measured.

    share: of the published budget; tiny: toy sizes, for a test. data_dir: of MNIST; model: of a
    language model; None for what is made up.
    """

    device: torch.device
    share: float = 1.0
    tiny: bool = False
    data_dir: str | None = None
    model: str | None = None

    @property
    def rounds(self) -> int:
        """Of each measurement that counts."""
        return 1 if self.tiny else ROUNDS

    @property
    def at_least(self) -> float:
        """Seconds that a measurement of a rate takes."""
        return 0.01 if self.tiny else 0.3


@dataclass(frozen=True)
class Row:
    """One figure. target: what was set before anything was measured, and whether it is met."""

    what: str
    value: float
    unit: str
    note: str = ""
    target: str = ""
    met: bool | None = None

    @classmethod
    def below(cls, what: str, value: float, unit: str, target: float, note: str = "") -> Row:
        """A figure that is to be below another."""
        return cls(what, value, unit, note, f"< {target:g} {unit}", value < target)

    @classmethod
    def at_least(cls, what: str, value: float, unit: str, target: float, note: str = "") -> Row:
        """A figure that is to reach another."""
        return cls(what, value, unit, note, f">= {target:g} {unit}", value >= target)

    def __str__(self) -> str:
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        line = f"  {self.what:<52}{_number(self.value):>12} {self.unit:<12}"
        line += f"{self.target:>14} {verdict:<7}" if self.target else ""
        return f"{line} {self.note}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


Part = Callable[[Plan], Iterator[Row]]
Work = Callable[[], object]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(work: Work, device: torch.device) -> float:
    """What it takes, to the end of what the device was given to do."""
    finish(device)
    begun = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - begun


def medians(works: Mapping[str, Work], plan: Plan) -> dict[str, float]:
    """Seconds of each, in rounds over all of them; the first round, to warm up, does not count."""
    for work in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(plan.rounds):
        for name, work in works.items():
            found[name].append(seconds(work, plan.device))
    return {name: median(each) for name, each in found.items()}


@contextmanager
def memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """Yields what tells the most GiB that tensors took on the device within it; NaN on the CPU."""
    if device.type != "cuda":
        yield lambda: float("nan")
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) / 2**30


def multiplied(
    sizes: Sequence[tuple[int, int, int]], copies: int, device: torch.device, dtype: torch.dtype
) -> Work:
    """Products of (m, k) and (k, n) matrices, so many copies of each at once, and nothing else.

    Products of one size share their matrices.
    """
    made = {
        (m, k, n): (
            torch.randn(copies, m, k, device=device).to(dtype),
            torch.randn(copies, k, n, device=device).to(dtype),
            torch.empty(copies, m, n, device=device, dtype=dtype),
        )
        for m, k, n in set(sizes)
    }

    def work() -> None:
        for size in sizes:
            a, b, out = made[size]
            torch.bmm(a, b, out=out)

    return work


def rates(works: Mapping[str, tuple[Work, float]], plan: Plan) -> dict[str, float]:
    """Operations a second of each. works: with the operations that each does, again and again."""
    repeated, counts = {}, {}
    for name, (work, operations) in works.items():
        work()
        count = max(1, round(plan.at_least / max(1e-6, seconds(work, plan.device))))
        repeated[name] = _again(work, count)
        counts[name] = count * operations
    return {name: counts[name] / each for name, each in medians(repeated, plan).items()}


def _again(work: Work, count: int) -> Work:
    def again() -> None:
        for _ in range(count):
            work()

    return again


def reached(found: Mapping[str, float], own: str, loop: str, large: str) -> Iterator[Row]:
    """Rows of `rates`: the work's own, as shares of a loop of its products and of a large one."""
    yield Row(f"{own}: operations a second", found[own] / 1e12, "TFLOP/s")
    share = found[own] / found[loop]
    yield Row("  of a plain loop of the same matrix products", 100 * share, "%",
              f"the loop reaches {found[loop] / 1e12:.3g} TFLOP/s")  # fmt: skip
    share = found[own] / found[large]
    yield Row("  of one large matrix product", 100 * share, "%",
              f"which reaches {found[large] / 1e12:.3g} TFLOP/s")  # fmt: skip
