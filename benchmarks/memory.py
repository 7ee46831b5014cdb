"""Prints the memory of the process over 5,000 meta-steps: it should stay flat.

`python benchmarks/memory.py [STEPS]`: local search of 25 losses on diabetes, one and three unrolled
steps; resident memory after each tenth, as a ratio to what it is after the first.
"""

import os
import sys
from pathlib import Path

import torch

from evoloss.discovery.settings import preset
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Workbench
from evoloss.lang.parse import parse
from evoloss.tasks.registry import load_task

LOSSES = ("square(y - f)", "abs(y - f) + tanh(y*f)", "log(y - f)", "aq(y, f) + square(f - y)")


def resident() -> int:
    """Bytes of memory that the process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    torch.set_num_threads(1)
    expressions = [parse(text) for text in (LOSSES * 7)[:25]]
    for unroll in (1, 3):
        bench = Workbench(load_task("diabetes"), preset("fast", local_steps=steps, unroll=unroll))
        held: list[int] = []

        def tick(share: float, held: list[int] = held) -> None:
            if round(share * steps) % (steps // 10) == 0:
                held.append(resident())

        tune(bench, expressions, tick)
        ratios = " ".join(f"{each / held[0]:.3f}" for each in held)
        print(f"unroll {unroll}: {held[0] / 2**20:.0f} MiB after {steps // 10} steps; × {ratios}")


if __name__ == "__main__":
    main()
