"""Loads a task from what a user types: a name, a table or array file, or `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evoloss.errors import UserError
from evoloss.tasks.options import SPLIT_SEED, Options
from evoloss.tasks.plugin import call, did_you_mean, load_callable

if TYPE_CHECKING:
    from evoloss.tasks.task import Task

_FILES = (".csv", ".parquet", ".npz")
_KINDS = ("regression", "classification")


@dataclass(frozen=True)
class _Entry:
    """Where a named task is loaded; imported on use, for torch is slow to import."""

    description: str
    module: str
    function: str
    takes_data: bool = False


_ENTRIES: Mapping[str, _Entry] = {
    "sine": _Entry("few-shot regression of random sinusoids (made on the spot)", "sine", "sine"),
    "diabetes": _Entry("regression, 442 × 10 (in scikit-learn)", "embedded", "diabetes"),
    "digits": _Entry("8 × 8 digit images, 10 classes (in scikit-learn)", "embedded", "digits"),
    "california": _Entry("house values, 20,640 × 8 (download)", "embedded", "california", True),
    "mnist": _Entry("28 × 28 digit images, 10 classes (--data-dir)", "images", "mnist", True),
    "fashion-mnist": _Entry(
        "28 × 28 clothing images, 10 classes (--data-dir)", "images", "fashion_mnist", True
    ),
    "cifar10": _Entry("32 × 32 colour images, 10 classes (--data-dir)", "images", "cifar10", True),
    "cifar100": _Entry(
        "32 × 32 colour images, 100 classes (--data-dir)", "images", "cifar100", True
    ),
    "svhn": _Entry("32 × 32 house numbers, 10 classes (--data-dir)", "images", "svhn", True),
    "names": _Entry("surname to nationality, character by character (--data-dir)", "names",
                    "names", True),
}  # fmt: skip

TASKS: Mapping[str, str] = {name: entry.description for name, entry in _ENTRIES.items()}
"""The named tasks, each with a line that says what it is."""


def load_task(
    spec: str,
    *,
    network: str | None = None,
    data_dir: str | Path | None = None,
    target: str | None = None,
    kind: str | None = None,
    drop_missing: bool = False,
    seed: int = SPLIT_SEED,
) -> Task:
    """The task that `spec` names, with the base network `network` or its usual one.

    spec: a name in TASKS, a .csv, .parquet or .npz file, or `module:function` returning a Task.
    seed: of the split into training, validation and test data; leave it, and all searches on a
        task have the same test data.
    The arguments are kept in `Task.source`: `load_task(**task.source)` loads the task again.
    Raises: UserError for whatever is wrong with the arguments or the data.
    """
    if kind is not None and kind not in _KINDS:
        raise UserError(f"unknown kind '{kind}': it is {' or '.join(_KINDS)}")
    folder = None if data_dir is None else Path(data_dir).expanduser().absolute()
    if folder is not None and not folder.is_dir():
        raise UserError(f"data directory '{data_dir}' does not exist: give the folder of the data")
    options = Options(network, folder, target, kind, drop_missing, seed)  # type: ignore[arg-type]
    spec, task = _load(spec, options)
    source: dict[str, object] = {
        "spec": spec,
        "network": network,
        "data_dir": None if folder is None else str(folder),
        "target": target,
        "kind": kind,
        "drop_missing": drop_missing,
        "seed": seed,
    }
    return replace(task, source=source)


def _load(spec: str, options: Options) -> tuple[str, Task]:
    if spec in _ENTRIES:
        return spec, _named(spec, _ENTRIES[spec], options)
    path = Path(spec).expanduser()
    if path.suffix.lower() in _FILES or path.exists() or "/" in spec:
        from evoloss.tasks.files import load_file

        return str(path.absolute()), load_file(path, options)
    if ":" in spec:
        return spec, _users_task(spec, options)
    hint = did_you_mean(spec, _ENTRIES)
    raise UserError(
        f"unknown task '{spec}'{hint}: the tasks are {', '.join(_ENTRIES)}, "
        f"a {', '.join(_FILES)} file, or module:function"
    )


def _named(name: str, entry: _Entry, options: Options) -> Task:
    _refuse_table_options(f"task '{name}'", options)
    if options.data_dir is not None and not entry.takes_data:
        raise UserError(f"task '{name}' needs no files: leave --data-dir out")
    module = importlib.import_module(f"evoloss.tasks.{entry.module}")
    load: Callable[[Options], Task] = getattr(module, entry.function)
    return load(options)


def _users_task(spec: str, options: Options) -> Task:
    from evoloss.tasks.compose import with_network
    from evoloss.tasks.task import Task, check_network

    _refuse_table_options(f"task '{spec}'", options)
    task = call(spec, load_callable(spec))
    if not isinstance(task, Task):
        raise UserError(f"'{spec}()' returns a {type(task).__name__}: it must return evoloss.Task")
    if options.network is not None:
        return with_network(task, options.network)
    check_network(task)
    return task


def _refuse_table_options(what: str, options: Options) -> None:
    given = {
        "--target": options.target is not None,
        "--kind": options.kind is not None,
        "--drop-missing": options.drop_missing,
    }
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise UserError(f"{what} has its own data: {' and '.join(wrong)} is for table files only")
