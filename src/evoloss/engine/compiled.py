"""Compiles kernels with Numba and keeps the machine code in a cache directory.

Compiling takes seconds; it should happen once per machine and operator table, not once per run.
Numba's own cache looks only at the file of the function itself, so a changed operator table would
go unnoticed by the kernels that call the generated code: here everything lies in a folder named
after the hash of the generated text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba

from evoloss.engine.codegen import source


def cache_directory() -> Path:
    """Where evoloss keeps what it can make again: $EVOLOSS_CACHE, else the XDG cache folder."""
    if own := os.environ.get("EVOLOSS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evoloss"


def compiled(function: Callable[..., Any]) -> Any:
    """`numba.njit` with evoloss's options and cache.

    Sums may be reordered; NaN and infinity keep their meaning, a division by zero gives infinity,
    and Python's lock is released. Products are not fused into sums: with a fused one,
    w y - w f would not be zero where y = f.
    """
    return _jit(function, fastmath={"reassoc"})


def compiled_exactly(function: Callable[..., Any]) -> Any:
    """`compiled`, with every operation in the order it is written in."""
    return _jit(function)


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_folder() / "machine-code")
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)
    finally:
        config.CACHE_DIR = before


@cache
def blocks() -> ModuleType:
    """The generated module, imported from a file so that Numba can cache it."""
    path = _folder() / "blocks.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            file.write(_source())
        os.replace(file.name, path)  # whole or not at all, whoever else does the same
    spec = importlib.util.spec_from_file_location("evoloss_blocks", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load the generated kernels from {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["evoloss_blocks"] = module  # Numba's cache looks the module up by name
    spec.loader.exec_module(module)
    return module


@cache
def _source() -> str:
    return source()


@cache
def _folder() -> Path:
    """A writable folder for this operator table: in the cache, else a temporary one."""
    name = hashlib.sha256(_source().encode()).hexdigest()[:16]
    folder = cache_directory() / "kernels" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="evoloss-kernels-"))
