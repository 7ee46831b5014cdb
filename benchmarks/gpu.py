"""Prints what a GPU makes of evoloss: targets, ratios within the run, memory and operations.

`python benchmarks/gpu.py [--device cuda] [--only PART] [--share 0.1] [--data-dir DIR] [--model DIR]
[--json FILE]`

    mnist       the published EvoMAL budget (25 × 50) with LeNet-5, and against one at a time
    diabetes    the same with a perceptron of 2 × 1,000 units
    switches    a generation with recorded steps, Triton, stacking and bf16, each on and off
    adapters    unlearning: adapters side by side against one at a time, bf16 against float32
    generation  unlearning: answers with a key-value cache against none, at once against one by one

Each part is a process of its own, so that neither its memory nor what breaks it is the next one's.
What is not whole says so: `--share` does a part of the budgets, and a search that takes too long is
broken off. `--device cpu --tiny` runs all parts at toy sizes: its figures mean nothing.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# isort: off
import evoloss  # before torch: says how its threads wait

# isort: on
import gpu_search
import gpu_unlearning
import torch
from gpu_rows import Part, Plan

from evoloss.engine.device import described, resolved
from evoloss.errors import UserError

PARTS: dict[str, Part] = {
    "mnist": gpu_search.budget(gpu_search.MNIST),
    "diabetes": gpu_search.budget(gpu_search.DIABETES),
    "switches": gpu_search.switches,
    "adapters": gpu_unlearning.adapters,
    "generation": gpu_unlearning.generation,
}
Keep = Callable[[str, dict[str, Any]], None]
"""Keeps what is known of a part by now."""
LIMITS = {"mnist": 300, "diabetes": 180, "switches": 180, "adapters": 150, "generation": 120}
"""Seconds after which a part is ended, wherever it hangs."""


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {
        "evoloss": evoloss.__version__, "torch": torch.__version__, "cuda": torch.version.cuda,
        "device": described(device), "load average": [round(each, 1) for each in os.getloadavg()],
        "tf32 in products": torch.backends.cuda.matmul.allow_tf32,
        "tf32 in convolutions": torch.backends.cudnn.allow_tf32,
    }  # fmt: skip
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found["GiB of memory"] = round(total / 2**30, 1)
        found["GiB that are free"] = round(free / 2**30, 1)
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return found


def run(name: str, plan: Plan, keep: Keep) -> None:
    """A part's rows, printed and kept as they come, and how it ended."""
    print(f"{name}:", flush=True)
    rows: list[dict[str, Any]] = []
    error: str | None = "ended before its last row"
    begun = time.perf_counter()
    try:
        for row in PARTS[name](plan):
            print(row, flush=True)
            rows.append(row.to_json())
            keep(name, {"rows": rows, "error": error})
        error = None
    except Exception as failure:  # whatever it was, the other parts go on
        error = f"{type(failure).__name__}: {next(iter(str(failure).splitlines()), '')}"
        print(f"  FAILED after {len(rows)} rows: {error}", flush=True)
    gc.collect()
    keep(name, {"rows": rows, "error": error, "seconds": time.perf_counter() - begun})


def run_apart(name: str, arguments: argparse.Namespace, limit: float, keep: Keep) -> None:
    """The same in a process of its own."""
    options = [f"--device={arguments.device}", f"--share={arguments.share}"]
    options += [
        f"--{option.replace('_', '-')}={getattr(arguments, option)}"
        for option in ("data_dir", "model")
        if getattr(arguments, option) is not None
    ]
    error = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, __file__, *options, f"--only={name}", f"--json={file}"]
        try:
            done = subprocess.run([*command, "--apart"], timeout=limit, check=False)
            if done.returncode:
                error = f"the process ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            error = f"ended after {limit:g} s"
        part: dict[str, Any] = {"rows": [], "error": error}
        if file.exists():
            part = json.loads(file.read_text())["parts"][name]
            # What a part says of itself is more than the status that it leaves.
            part["error"] = part["error"] if part.get("seconds") else error or part["error"]
    if error and "seconds" not in part:
        print(f"  FAILED: {error}", flush=True)
    keep(name, part)


def arguments_of(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 and so on, or cpu")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given again")
    parser.add_argument("--share", type=float, default=1.0, help="of the budgets, such as 0.1")
    parser.add_argument("--data-dir", help="where mnist lies; made-up images without it")
    parser.add_argument("--model", help="a language model; a made-up one without it")
    parser.add_argument("--json", type=Path, help="keeps the table here")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a test")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """0, 1 if a part failed, or 2 if there is nothing to run on."""
    arguments = arguments_of(given)
    try:
        device = torch.device(resolved(arguments.device))
        if device.type == "cpu" and not arguments.tiny:
            raise UserError("on the CPU there is nothing to measure here: give --tiny, or a GPU")
        if not 0.0 < arguments.share <= 1.0:
            raise UserError(f"--share {arguments.share:g}: give a number above 0, 1 at most")
    except UserError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    plan = Plan(device, arguments.share, arguments.tiny, arguments.data_dir, arguments.model)
    names = arguments.only or list(PARTS)
    found: dict[str, Any] = {"environment": environment(device), "share": plan.share,
                             "tiny": plan.tiny, "parts": {}}  # fmt: skip

    def keep(name: str, part: dict[str, Any]) -> None:
        found["parts"][name] = part
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))

    if not arguments.apart:
        print(", ".join(f"{name} {each}" for name, each in found["environment"].items()))
        if plan.tiny:
            print("toy sizes: no figure below means anything, nor does whether a target is met")
        if plan.share < 1.0:
            print(f"{plan.share:.0%} of the budgets: their seconds are extrapolated")
    for name in names:
        if arguments.apart or plan.tiny:
            run(name, plan, keep)
        else:
            run_apart(name, arguments, LIMITS[name], keep)
    return int(any(each["error"] for each in found["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
