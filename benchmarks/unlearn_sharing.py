"""Prints how fast a generation of adapters is trained and measured, by how the cores share it.

`python benchmarks/unlearn_sharing.py [--widths 192,512,768] [--layers 4] [--losses 8]`: Llama
models of these widths that know nothing, on the demonstration's data; each way in turn, the fastest
round of each, as a ratio to the whole generation in one batch on as many threads as a trial finds
fastest. Workers are at work already, as they are in all generations but the first.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import torch
import transformers

from evoloss.execution.staff import Staff
from evoloss.lang.zoo import loss
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.demo import SETTINGS, demonstration
from evoloss.unlearn.language import quiet
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.sharing import SHARD
from evoloss.unlearn.workers import executor

WAYS = {"one batch": (None, None), "shards": (SHARD, None), "workers": (SHARD, "usual")}
"""The size of shards, and who trains them."""


def main() -> None:
    """Prints a row for each width."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", default="192,512,768")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--losses", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for width in map(int, told.widths.split(",")):
            problem, size = untaught(Path(folder) / str(width), width, told.layers)
            seconds = timed(problem, told.losses, told.rounds)
            base = seconds["one batch"]
            ratios = ", ".join(f"{way} {base / each:.2f}" for way, each in seconds.items())
            print(f"{width} wide, {size / 2**20:.0f} MiB: {ratios}", flush=True)


def untaught(folder: Path, width: int, layers: int) -> tuple[Problem, int]:
    """The demonstration with another model, and the bytes of that."""
    known = demonstration()
    config = transformers.AutoConfig.from_pretrained(known.model)
    heads = config.num_attention_heads
    config.update({"hidden_size": width, "intermediate_size": 3 * width, "head_dim": width // heads,
                   "num_hidden_layers": layers})  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with quiet():
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(known.model).save_pretrained(folder)
    source = {**(known.source or {}), "model": str(folder), "retain_model": None}
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    return replace(known, model=str(folder), retain_model=None, source=source), size


def timed(problem: Problem, losses: int, rounds: int) -> dict[str, float]:
    """The least seconds that each way takes for a generation of one epoch."""
    found = dict.fromkeys(WAYS, math.inf)
    for _ in range(rounds):
        for way in WAYS:
            with generation(problem, losses, way) as train:
                train()  # loads the model, and warms up
                begun = time.perf_counter()
                train()
                found[way] = min(found[way], time.perf_counter() - begun)
    return found


@contextmanager
def generation(problem: Problem, losses: int, way: str) -> Iterator:
    """What trains and measures it once."""
    shard, hired = WAYS[way]
    settings = {**SETTINGS, "epochs": 1, "texts": 8, "population": losses, "shard": shard}
    bench = Bench(problem, unlearn_settings(**settings))
    arena = Unlearning(bench)
    bench.sharing = arena.sharing()
    with executor(bench, Staff(workers=hired)) as arena.executor, arena.threads():
        trials = arena.trials(bench.searching, [loss("npo")] * losses, [1] * losses)
        yield lambda: trials.run(bench.start)


if __name__ == "__main__":
    main()
