"""What a picture of the report is: panels to draw, a sentence to read them by, and their data."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """One pair of axes. draw: fills them; legend: how many columns it has, 0 for none."""

    title: str
    draw: Callable[[Axes], None]
    legend: int = 0
    height: float = 3.0


@dataclass(frozen=True)
class Table:
    """Data behind a picture, for a CSV file."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def write(self, path: Path) -> None:
        """Writes the table; None becomes an empty field."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(self.rows)


@dataclass(frozen=True)
class Picture:
    """A numbered figure of the report.

    name: of its files, such as `04-front`; caption: what is to be seen, and the setting.
    tables: by file name without the ending; html: shown below the panels.
    A picture without panels says in its caption why there is nothing to see.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    html: str = ""
