"""What a running search shows, from made-up progress."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.progress import Progress
from evoloss.display import LiveDisplay, PlainDisplay, clock, display, loss_text
from evoloss.lang.parse import parse

BEST = Candidate(
    id=3,
    generation=0,
    index=3,
    operator="initial",
    parents=(),
    expression=parse("square(y - f)"),
    canonical="",
    phi=(1.23456789, 1.0, 0.5),
    error=0.4412345,
)
PROGRESS = Progress(
    generation=2,
    generations=10,
    stage="tuning",
    best=BEST,
    best_shown=0.4412345,
    fates={Fate.SCORED: 7, Fate.REJECTED: 4},
    candidates=11,
    per_second=12.34,
    seconds=65.0,
    seconds_left=3700.0,
)
FATES = "7 scored · 0 duplicate · 0 equivalent · 4 rejected · 0 raced out · 0 failed"


def console(*, terminal: bool, width: int = 120) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=width, color_system=None), file


def rendered(shown: LiveDisplay) -> str:
    with shown.console.capture() as capture:
        shown.console.print(shown.render())
    return capture.get()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_display_suits_the_output() -> None:
    assert isinstance(display(console(terminal=True)[0], "mse"), LiveDisplay)
    assert isinstance(display(console(terminal=False)[0], "mse"), PlainDisplay)


def test_a_pipe_gets_one_line_for_each_saved_generation() -> None:
    where, file = console(terminal=False, width=40)
    with display(where, "mse") as observer:
        for stage in ("tuning", "training", "saved"):
            observer(replace(PROGRESS, stage=stage))
        observer(replace(PROGRESS, generation=3, stage="saved", seconds_left=None))
    assert file.getvalue().splitlines() == [
        f"generation 2/10 | best mse 0.4412 | 11 candidates ({FATES}) | 12.3 a second"
        " | 1:01:40 left | square(1.235*(y - 0.5*f))",
        f"generation 3/10 | best mse 0.4412 | 11 candidates ({FATES}) | 12.3 a second"
        " | square(1.235*(y - 0.5*f))",
    ]


def test_before_anything_is_scored() -> None:
    where, file = console(terminal=False)
    with display(where, "mse") as observer:
        observer(replace(PROGRESS, stage="saved", best=None, best_shown=None))
    assert "best none yet" in file.getvalue()


def test_the_terminal_shows_everything() -> None:
    shown = LiveDisplay(console(terminal=True)[0], "mse")
    assert "preparing" in rendered(shown)
    shown(PROGRESS)
    text = rendered(shown)
    for part in (
        "generation 2/10", "tuning", "square(1.235*(y - 0.5*f))", "mse 0.4412",
        "11, 12.3 a second", FATES, "1:05", "1:01:40 left",
    ):  # fmt: skip
        assert part in text
    shown(replace(PROGRESS, best=None, best_shown=None, seconds_left=None))
    assert "none yet" in rendered(shown)


def test_a_long_loss_is_cut_to_a_few_lines() -> None:
    loss = "square(y - f)"
    for _ in range(40):
        loss = f"sqrt({loss}) + square(y - f)"
    shown = LiveDisplay(console(terminal=True, width=80)[0], "mse")
    shown(replace(PROGRESS, best=replace(BEST, expression=parse(loss), phi=None)))
    text = rendered(shown)
    assert "…" in text
    assert len(text.splitlines()) < 12


def test_being_told_of_progress_writes_nothing_by_itself() -> None:
    where, file = console(terminal=True)
    shown = LiveDisplay(where, "mse")
    for _ in range(1000):
        shown(PROGRESS)
    assert file.getvalue() == ""


def test_the_terminal_is_given_back_after_an_error() -> None:
    where, file = console(terminal=True)

    def interrupted() -> None:
        with display(where, "mse") as observer:
            observer(PROGRESS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l")


def test_weights_that_ran_away_leave_the_structure() -> None:
    assert loss_text(replace(BEST, expression=parse("f - y - 1"), phi=(1.0, 1.0, 1.0, 1e999))) == (
        "f - y - 1"
    )
