"""What several commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the others keep the defaults of what takes them."""
    return {name: value for name, value in options.items() if value is not None}


def new_console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
