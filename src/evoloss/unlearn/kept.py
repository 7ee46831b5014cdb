"""What is kept in the cache folder: made once, and there whole or not at all.

Several processes may make the same at once. Each writes in a place of its own, and what is whole is
moved to where it belongs; whoever comes later with a folder takes the one that is there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from evoloss.engine.compiled import cache_directory
from evoloss.errors import UserError

Write = Callable[[Path], None]
"""Makes a file or a folder with all that is in it, by that name."""
_UNFINISHED = ".partial"
_ABANDONED = 24 * 3600.0
"""After so many seconds nobody writes any more: whoever did was killed."""


def folder(name: str, write: Write) -> Path:
    """The folder of that name; `write` makes it if it is not there.

    Raises: UserError if it cannot be kept, which is found out before `write` begins.
    """
    from safetensors import SafetensorError

    place = _place(name)
    try:
        if not place.is_dir():
            _make(place, write)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the cache '{cache_directory()}' cannot be written to: {reason}; set EVOLOSS_CACHE to "
            "a folder that can"
        ) from error
    return place


def tensor(name: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of that name; computed where it is missing or damaged, and kept if it can be."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    place = _place(f"{name}.safetensors")
    with suppress(OSError, SafetensorError):
        return load_file(str(place))["kept"]
    found = compute()
    with suppress(OSError, SafetensorError):
        _make(place, lambda path: save_file({"kept": found.contiguous()}, str(path)))
    return found


def _place(name: str) -> Path:
    return cache_directory() / "unlearn" / name


def _make(place: Path, write: Write) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.parent)
    with TemporaryDirectory(prefix=f"{place.name}.", suffix=_UNFINISHED, dir=place.parent) as own:
        # One below: what is made has the usual permissions, a temporary folder its owner's alone.
        made = Path(own) / place.name
        write(made)
        try:
            made.replace(place)
        except OSError:
            if not place.is_dir():
                raise
            # No folder takes another's place: somebody else was first.


def _sweep(cache: Path) -> None:
    """Takes away what killed processes left half-written."""
    for each in cache.glob(f"*{_UNFINISHED}"):
        with suppress(OSError):  # somebody else has swept it
            if time.time() - each.stat().st_mtime > _ABANDONED:
                shutil.rmtree(each, ignore_errors=True)
