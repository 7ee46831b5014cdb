"""What several commands do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evoloss.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from evoloss.discovery.progress import Observer, Progress
    from evoloss.discovery.result import Result
    from evoloss.execution.staff import Workers


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and the line's end
_ADDRESS = re.compile(r"(ray://)?[\w.\-\[\]:]+:\d+")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the others keep the defaults of what takes them."""
    return {name: value for name, value in options.items() if value is not None}


def check_kind(run: Path | None, **options: Any) -> None:
    """Raises: UserError for an option that unlearning has no use for, rather than ignoring it.

    run: None for an expression. options: by name; None and False stand for ones not given.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            what = "the loss" if run is None else f"run '{run}'"
            option = name.replace("_", "-")
            raise UserError(f"{what} is one of unlearning, which has no --{option}: leave it out")


def check_device(name: str) -> None:
    """Raises: UserError for a device that is none, or that this machine does not have."""
    from evoloss.discovery.settings import Settings
    from evoloss.engine.device import resolved

    Settings(device=name)
    resolved(name)


def endless(budgets: Mapping[str, float]) -> dict[str, int]:
    """The generations of a search that is given other budgets: as many as those allow."""
    from evoloss.discovery.loop_settings import ENDLESS

    return {"generations": ENDLESS} if budgets else {}


def say(console: Console, text: str) -> None:
    """Prints a text as it is: nothing in it is markup, and only the terminal breaks its lines.

    Control characters are shown, not sent: a server's reply may hold what rules a terminal.
    """
    console.print(printable(text), markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text with its control characters written out, as in \\x1b."""
    return _CONTROL.sub(lambda each: each[0].encode("unicode_escape").decode("ascii"), text)


def say_ending(console: Console, result: Result) -> None:
    """The closing line of a search: which budget ended it, and how to go on with a larger one."""
    if result.ended is None:
        return
    text = str(result.ended)
    if result.ended.option and result.run is not None:
        run = shlex.quote(str(result.run))
        text += f"\nmore of it:    evoloss resume {run} {result.ended.option}"
    say(console, text)


def with_address(arguments: Sequence[str]) -> list[str]:
    """The arguments with an address after a `--ray` that has none."""
    found: list[str] = []
    for at, each in enumerate(arguments):
        found.append(each)
        after = arguments[at + 1] if at + 1 < len(arguments) else "-"
        if each == "--ray" and after not in ("auto", "local") and not _ADDRESS.fullmatch(after):
            found.append("local")
    return found


def staff(
    workers: int | None, ray: str | None = None, seconds: float | None = None,
    memory: float | None = None, gpus: float | None = None, unasked: Workers = None,
) -> dict[str, Any]:  # fmt: skip
    """What the options of workers say, as arguments of a search; they are checked.

    workers: 0 for none. memory: in GiB. unasked: who works where nothing is said.
    Raises: UserError for what limits or asks nobody.
    """
    if not workers and ray is None and not (seconds is None and memory is None):
        raise UserError(
            "--worker-seconds and --worker-memory limit workers: add --workers N or --ray"
        )
    if not workers and ray is None and gpus is None:
        return {} if workers == 0 or unasked is None else {"workers": unasked}
    from evoloss.execution.crew import Limits
    from evoloss.execution.staff import Staff

    given_memory = None if memory is None else int(memory * 2**30)
    limits = Limits(**given(seconds=seconds, memory=given_memory))
    chosen = Staff(workers or None, ray, limits, gpus or 0.0)
    return {field.name: getattr(chosen, field.name) for field in fields(chosen)}


def new_console() -> Console:
    """A console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def takes_no_run(run: str | None, what: str, instead: str) -> None:
    """Raises: UserError for a run that is given to a command which searches anew."""
    if run is not None:
        raise UserError(
            f"'{run}': compare takes no run, it searches anew with several {what}; "
            f"`evoloss evaluate {shlex.quote(run)}{instead}"
        )


def write_json(data: Any) -> None:
    """To standard output, for programs."""
    import json

    typer.echo(json.dumps(data, indent=2))


@contextmanager
def watched(
    console: Console, metric: str, quiet: bool, track: Sequence[str] | None, directory: Path
) -> Iterator[Observer | None]:
    """The display, and trackers beside it."""
    from evoloss.display import display

    with ExitStack() as stack:
        observers: list[Observer] = []
        for each in track or ():
            from evoloss import tracking

            tracker = tracking.open_tracker(each, directory.name)
            stack.callback(tracker.close)
            observers.append(tracking.observer(tracker))
        if not quiet:
            observers.append(stack.enter_context(display(console, metric)))

        def tell(progress: Progress) -> None:
            for observer in observers:
                observer(progress)

        yield tell if observers else None


@contextmanager
def comparing(directory: Path) -> Iterator[None]:
    """Ctrl-C ends with how to go on; what is finished is not done again."""
    try:
        yield
    except KeyboardInterrupt:
        begun = directory.is_dir() and any(directory.iterdir())
        done = f"what is finished is in {directory}" if begun else "nothing is finished yet"
        typer.echo(f"stopped; {done}: run the same command again", err=True)
        raise typer.Exit(130) from None


@contextmanager
def stoppable(directory: Path) -> Iterator[None]:
    """Ctrl-C ends with how to go on; every finished generation is saved already."""
    try:
        yield
    except KeyboardInterrupt:
        from evoloss.runs import stopped

        typer.echo(stopped(directory), err=True)
        raise typer.Exit(130) from None
