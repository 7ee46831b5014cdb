"""The commands for unlearning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli import options, unlearn_compare, unlearn_search
from evoloss.errors import UserError
from evoloss.wording import counted

if TYPE_CHECKING:
    from evoloss.lang.reader import Read, Refused

app = typer.Typer(no_args_is_help=True)
app.add_typer(unlearn_search.app)
app.add_typer(unlearn_compare.app)
KIND = "unlearning"
"""What the description of such a run has under `kind`."""


@app.command("read")
def read_reply(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A language model's reply, - for standard input.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show what is understood of a raw reply: each loss function, or why it is refused."""
    from evoloss.lang.reader import read

    found = read(_text(file))
    if as_json:
        import json

        typer.echo(json.dumps([_record(each) for each in found], indent=2))
    elif not found:
        typer.echo("no loss function found: one is called loss_fn_1, or takes log_probs_forget")
    else:
        for each in found:
            typer.echo(_shown(each))


def _text(file: str) -> str:
    """The text of a file; what is not UTF-8 is replaced, as a reply may be cut anywhere."""
    from evoloss.lang.reader import MAX_REPLY

    enough = 4 * MAX_REPLY + 4  # bytes of as many characters and one more, which is refused
    if file == "-" and sys.stdin is None:  # as Python has it where a process is given none
        raise UserError("standard input is closed: give a FILE, or send the reply to it")
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            data = stream.read(enough)
    except OSError as error:
        raise UserError(f"cannot read '{file}': {error.strerror}") from error
    return data.decode("utf-8", errors="replace")


def _record(each: Read | Refused) -> dict[str, Any]:
    from evoloss.lang.reader import Refused
    from evoloss.lang.text import to_text

    if isinstance(each, Refused):
        return {"name": each.name, "line": each.line, "refused": each.reason}
    loss = to_text(each.expression)
    return {"name": each.name, "line": each.line, "epochs": each.epochs, "loss": loss}


def _shown(each: Read | Refused) -> str:
    from evoloss.lang.reader import Refused
    from evoloss.lang.text import to_text

    if isinstance(each, Refused):
        return f"{each.name or 'the reply'}, line {each.line}: refused: {each.reason}"
    epochs = counted(each.epochs, "epoch")
    return f"{each.name}, line {each.line}, {epochs}:\n  {to_text(each.expression, digits=6)}"
