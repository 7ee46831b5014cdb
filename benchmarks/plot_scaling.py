"""Draws the cost curves that `scaling.py --json FILE` measured, both axes logarithmic.

`python benchmarks/plot_scaling.py FILE… [--out docs/scaling.png]`: processor time for one of what
is varied, as a ratio to the smallest size. A level line is linear cost, a falling one shares a
fixed cost, a rising one grows faster than the size.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from curves import power_law
from matplotlib.figure import Figure

PANELS = {
    "the search": ("population", "driver", "batch", "classes"),
    "a loss": ("nodes", "form", "fingerprint"),
    "the stored run": ("commit", "open", "resume", "show", "report"),
}
COLOURS = ("#2a6fbb", "#c8553d", "#3f8f5b", "#8a5fa8", "#b8860b")


def drawn(curves: dict[str, Any]) -> Figure:
    """One panel a group of curves."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            if name not in curves:
                continue
            sizes = curves[name]["at"]
            seconds = [median(each[1] for each in rounds) for rounds in curves[name]["seconds"]]
            each = [one / size for one, size in zip(seconds, sizes, strict=True)]
            exponent = power_law(sizes, seconds).exponent
            axes.loglog(sizes, [one / each[0] for one in each], "o-", color=colour, markersize=4,
                        label=f"{name} {exponent:.2f}")  # fmt: skip
        axes.axhline(1.0, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_title(title)
        axes.set_xlabel("size")
        axes.legend(frameon=False, fontsize=8, title="exponent", title_fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("processor time for one,\nratio to the smallest size")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.png"))
    arguments = parser.parse_args()
    curves: dict[str, Any] = {}
    for file in arguments.files:
        curves |= json.loads(file.read_text())
    drawn(curves).savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
