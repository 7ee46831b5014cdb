"""What a running search looks like: redrawn in place on a terminal, else a line a generation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.highlighter import ReprHighlighter
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.loop_settings import ENDLESS
from evoloss.discovery.progress import Progress
from evoloss.errors import LossError
from evoloss.lang.text import to_text
from evoloss.wording import counted

REDRAWS_PER_SECOND = 4
"""Enough to see it live; a redraw takes about a millisecond from the search."""

_FORMULA_LINES = 3  # of the best loss while the search runs; the report has all of it


class Display(Protocol):
    """An observer that is entered before a search and left after it."""

    def __call__(self, progress: Progress) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def display(console: Console, metric: str) -> Display:
    """The display that suits where the output goes."""
    return LiveDisplay(console, metric) if console.is_terminal else PlainDisplay(console, metric)


def formula(text: str) -> Text:
    """A loss as mathematics, numbers and functions set apart by colour."""
    highlighted = ReprHighlighter()(Text(text))
    assert isinstance(highlighted, Text)  # of the same type as what is highlighted
    return highlighted


def loss_text(candidate: Candidate, digits: int | None = 4) -> str:
    """The tuned loss; the bare structure where the weights ran away to infinity or NaN."""
    try:
        return to_text(candidate.loss, digits)
    except LossError:
        return to_text(candidate.expression, digits)


def clock(seconds: float) -> str:
    """A span of time as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def of_planned(done: int, planned: int) -> str:
    """How far a search is, as 3/50; only 3 where another budget is to end it."""
    return str(done) if planned >= ENDLESS else f"{done}/{planned}"


def fates(counts: Mapping[Fate, int]) -> str:
    """How many candidates met which fate, every fate named."""
    return " · ".join(f"{counts.get(fate, 0)} {fate}" for fate in Fate)


class LiveDisplay:
    """Redraws the state of the search in place, at a fixed rate and in a thread of its own.

    Being told of progress only stores it, so a search that reports often is not slowed down.
    """

    def __init__(self, console: Console, metric: str) -> None:
        self.console = console
        self.metric = metric
        self.progress: Progress | None = None
        self.told = time.perf_counter()
        self._live = Live(
            console=console,
            refresh_per_second=REDRAWS_PER_SECOND,
            get_renderable=self.render,
            transient=True,
        )

    def __call__(self, progress: Progress) -> None:
        self.progress, self.told = progress, time.perf_counter()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """The state as it was last told, with the clocks running on."""
        progress = self.progress
        if progress is None:
            waited = clock(time.perf_counter() - self.told)
            return Text(f"preparing the networks and the compiled kernels {waited}", style="dim")
        since = time.perf_counter() - self.told
        left = progress.seconds_left
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(overflow="fold")
        rows.add_row(
            f"generation {of_planned(progress.generation, progress.generations)}",
            _stage_bar(progress),
        )
        rows.add_row("best so far", self._best(progress))
        rows.add_row("validation", _score(progress, self.metric))
        rows.add_row("candidates", f"{progress.candidates}, {progress.per_second:.1f} a second")
        rows.add_row("their fates", fates(progress.fates))
        rows.add_row(
            "time",
            clock(progress.seconds + since)
            + ("" if left is None else f", {clock(max(left - since, 0.0))} left"),
        )
        return Group(rows)

    def _best(self, progress: Progress) -> Text:
        if progress.best is None:
            return Text("none yet", style="dim")
        text = loss_text(progress.best)
        room = max(self.console.width - 20, 20) * _FORMULA_LINES
        return formula(text if len(text) <= room else text[: room - 1] + "…")


class PlainDisplay:
    """Writes one line for each generation that is saved, for pipes and log files."""

    def __init__(self, console: Console, metric: str) -> None:
        self.console = console
        self.metric = metric

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "saved":
            self.console.print(Text(line(progress, self.metric)), soft_wrap=True, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


def line(progress: Progress, metric: str) -> str:
    """The state of a search in one line."""
    parts = [
        f"generation {of_planned(progress.generation, progress.generations)}",
        f"best {_score(progress, metric)}",
        f"{counted(progress.candidates, 'candidate')} ({fates(progress.fates)})",
        f"{progress.per_second:.1f} a second",
    ]
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    if progress.best is not None:
        parts.append(loss_text(progress.best))
    return " | ".join(parts)


def _stage_bar(progress: Progress) -> RenderableType:
    saved = progress.generation - (progress.stage != "saved")
    bar = ProgressBar(total=progress.generations, completed=saved, width=30)
    cells = Table.grid(padding=(0, 2))
    cells.add_row(bar, Text(progress.stage))
    return cells


def _score(progress: Progress, metric: str) -> str:
    return "none yet" if progress.best_shown is None else f"{metric} {progress.best_shown:.4g}"
