"""The command line. Only here is anything printed; heavy modules are imported inside commands."""

from __future__ import annotations

import sys

import typer

from evoloss.cli import evidence, lists, losses, searching, unlearn
from evoloss.cli.shared import printable, with_address
from evoloss.errors import UserError

app = typer.Typer(
    help="Discovers the loss function that a model should be trained with.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(searching.app)
app.add_typer(losses.app)
app.add_typer(lists.app)
app.add_typer(evidence.app)
app.add_typer(unlearn.app, name="unlearn", help="Losses that make a language model forget.")


def main() -> None:
    """The entry point `evoloss`: a user's mistake is one line and status 2."""
    try:
        app(with_address(sys.argv[1:]))
    except UserError as error:
        typer.echo(f"evoloss: error: {printable(str(error))}", err=True)
        sys.exit(2)
