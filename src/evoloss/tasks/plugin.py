"""Finds what a user names on the command line: `module:function` specs, near misses of names."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from evoloss.errors import UserError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest of the known names; nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def load_callable(spec: str) -> Callable[..., Any]:
    """The callable that `module:attribute` names; modules in the current directory are found too.

    Raises: UserError if the module or the attribute is missing, fails to import, or is no callable.
    """
    module_name, _, path = spec.partition(":")
    if not (module_name and path):
        raise UserError(f"'{spec}' is not of the form module:function")
    found: Any = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            hint = did_you_mean(name, vars(found))
            raise UserError(f"'{spec}': module '{module_name}' has no '{name}'{hint}")
        found = getattr(found, name)
    if not callable(found):
        raise UserError(f"'{spec}' is a {type(found).__name__}: name a function without parameters")
    return found  # type: ignore[no-any-return]


def call(spec: str, function: Callable[..., Any]) -> Any:
    """The result of a user's function without arguments; what it raises becomes a UserError."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"'{spec}()' failed: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")


def _import(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: a user's own file comes first
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"no module '{name}': neither installed nor a file in the current directory"
            ) from error
        raise UserError(f"importing '{name}' failed: {describe(error)}") from error
    except Exception as error:
        raise UserError(f"importing '{name}' failed: {describe(error)}") from error
