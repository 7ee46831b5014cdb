"""Draws pictures: as SVG inside the page, its colours variables, and as PNG and SVG files."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoloss.errors import UserError
from evoloss.report.palette import GRID, INK, MUTED, PAPER, variable
from evoloss.report.picture import Panel, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

WIDTH = 4.4
"""Inches of a panel: so narrow that its text can be read on a telephone."""

_LEGEND_LINE = 0.19  # inches
_COLUMNS = 3  # panels side by side in a file
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "evoloss",  # equal pictures are equal files
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.8,
    "savefig.dpi": 160,
}


@contextmanager
def style() -> Iterator[None]:
    """Within it, matplotlib draws in the report's style. Raises UserError if it is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            'a report needs matplotlib: install it with `pip install "evoloss[report]"`'
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own style
        matplotlib.rcParams.update(_STYLE)
        yield


def inline(panel: Panel, name: str) -> str:
    """The panel as an SVG element for the page; name: unique there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
    figure.set_figheight(panel.height + _fill(figure, panel))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _embedded(buffer.getvalue(), name, panel.title)


def save(picture: Picture, folder: Path) -> None:
    """The picture as PNG and SVG, its tables as CSV."""
    for name, table in picture.tables.items():
        table.write(folder / f"{name}.csv")
    if not picture.panels:
        return
    from matplotlib.figure import Figure

    columns = 2 if len(picture.panels) == 4 else min(_COLUMNS, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    height = max(panel.height for panel in picture.panels)
    figure = Figure(figsize=(WIDTH * columns, height * rows), layout="constrained")
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    legends = [_fill(cell, panel) for cell, panel in zip(cells, picture.panels, strict=False)]
    figure.set_figheight((height + max(legends)) * rows)
    figure.savefig(folder / f"{picture.name}.png")
    figure.set_layout_engine("none")  # laid out by now
    figure.savefig(folder / f"{picture.name}.svg", metadata={"Date": None})


def _fill(figure: FigureBase, panel: Panel) -> float:
    """Draws the panel; returns the inches that its legend takes beyond a first line."""
    axes = figure.add_subplot()
    panel.draw(axes)
    axes.set_title(panel.title)
    _clip(axes)
    if not panel.legend:
        return 0.0
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=panel.legend)
    return _LEGEND_LINE * max(0, math.ceil(len(labels) / panel.legend) - 1)


def _clip(axes: Axes) -> None:
    """Brings what lies far outside the axes nearer: an SVG cannot hold every number."""
    low, high = axes.get_ylim()
    reach = 10 * abs(high - low)
    bounds = min(low, high) - reach, max(low, high) + reach
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            line.set_ydata(np.clip(np.asarray(line.get_ydata(), dtype=float), *bounds))
    for area in axes.collections:
        for path in area.get_paths() if area.get_transform() == axes.transData else ():
            vertices = np.asarray(path.vertices)
            vertices[:, 1] = vertices[:, 1].clip(*bounds)


def _embedded(svg: str, name: str, title: str) -> str:
    """What remains of an SVG file inside a page: no header, sizes, fonts or common ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {box.group() if box else ""} role="img" aria-label="{html.escape(title)}">'
    svg = re.sub(r"<svg[^>]*>", opening, svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"xlink:href=", "href=", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#|url\(#', lambda found: f"{found.group()}{name}-", svg)
    svg = re.sub(r"(font: [^;\"]*?[\d.]+px) '?DejaVu Sans[^;\"]*", r"\1 var(--font)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"#[0-9a-f]{6}", lambda found: variable(found.group()), svg)
    return re.sub(r"\n\s*", "\n", svg)
