"""What several commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the others keep the defaults of what takes them."""
    return {name: value for name, value in options.items() if value is not None}


def new_console() -> Console:
    """A console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def write_json(data: Any) -> None:
    """To standard output, for programs."""
    import json

    typer.echo(json.dumps(data, indent=2))
