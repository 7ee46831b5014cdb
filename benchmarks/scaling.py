"""Prints how cost grows: against the size of a generation, of its losses, and of the stored run.

`python benchmarks/scaling.py [CURVE …] [--seconds 60] [--runs DIR] [--json FILE]`

Each curve is measured in rounds over all of its sizes (`curves.py`), for so many seconds, and a
power law is put through it: with an exponent of 1, twice the size takes twice the time. `--runs`
keeps the made-up runs of the last curves, which take minutes to write; `--json` keeps what was
measured, for `plot_scaling.py`. Workers have a benchmark of their own, `workers.py`.
"""

import argparse
import json
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import scaling_search
import scaling_store
from curves import Curve, measured, shown


def chosen(names: list[str], folder: Path, quick: bool) -> dict[str, Curve]:
    """The curves of these names, or all. Raises SystemExit for an unknown one."""
    known = {**scaling_search.CURVES, **scaling_store.curves(folder)}
    for name in names:
        if name not in known:
            raise SystemExit(f"no curve '{name}': there are {', '.join(known)}")
    found = {name: known[name] for name in names or known}
    if quick:
        found = {name: replace(each, at=each.quick) for name, each in found.items()}
    return found


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Measures and prints, curve by curve; what was measured is in the file after each."""
    results = {}
    for name, curve in chosen(arguments.curves, folder, arguments.quick).items():
        found = measured(curve, 0.0 if arguments.quick else arguments.seconds)
        print(f"{name}: " + "\n".join(shown(curve, found)), end="\n\n", flush=True)
        results[name] = {"what": curve.what, "unit": curve.unit, "at": found.at,
                         "seconds": found.rounds}  # fmt: skip
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="*", metavar="CURVE")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each curve, about")
    parser.add_argument("--runs", type=Path, help="keeps the made-up runs here")
    parser.add_argument("--json", type=Path, help="keeps what was measured here")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    arguments = parser.parse_args()
    if arguments.runs:
        arguments.runs.mkdir(parents=True, exist_ok=True)
    with nullcontext(arguments.runs) if arguments.runs else tempfile.TemporaryDirectory() as folder:
        run(arguments, Path(folder))


if __name__ == "__main__":
    main()
