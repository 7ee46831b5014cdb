"""Sends the course of a search to TensorBoard or MLflow, or to anything with two methods."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from evoloss.discovery.candidate import Fate
from evoloss.discovery.progress import Observer, Progress
from evoloss.errors import UserError, unknown
from evoloss.lang.expr import complexity


class Tracker(Protocol):
    """Where numbers go. Write a class with these two methods to send them elsewhere."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Some numbers at a step (the generation)."""

    def close(self) -> None:
        """Nothing more will come."""


def values(progress: Progress) -> dict[str, float]:
    """The numbers of a finished generation."""
    found: dict[str, float] = {"candidates": progress.candidates, "seconds": progress.seconds}
    found |= {f"fates/{fate}": progress.fates.get(fate, 0) for fate in Fate}
    if progress.best is not None and progress.best_shown is not None:
        found["best/validation"] = progress.best_shown
        found["best/complexity"] = complexity(progress.best.expression)
    return found


def observer(tracker: Tracker) -> Observer:
    """Logs every generation that is saved."""

    def observe(progress: Progress) -> None:
        if progress.stage == "saved":
            tracker.log(progress.generation, values(progress))

    return observe


def open_tracker(text: str, run: str) -> Tracker:
    """The tracker that `tensorboard:FOLDER` or `mlflow:URI` names; run: the run's name there.

    Raises UserError for another kind, a place that does not work, or a package that is missing.
    """
    kind, _, where = text.partition(":")
    if kind not in _TRACKERS:
        raise unknown("tracker", kind, _TRACKERS)
    if not where:
        raise UserError(f"--track {text} says no place: give {kind}:{_PLACES[kind]}")
    try:
        return _TRACKERS[kind](where, run)
    except UserError:
        raise
    except Exception as error:  # whatever a server or a file system may answer
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot track to '{text}': {first}") from error


class TensorBoard:
    """An event file for `tensorboard --logdir`."""

    def __init__(self, folder: str, run: str) -> None:
        _imported("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(f"{folder}/{run}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


class MLflow:
    """A run on an MLflow server or in a folder."""

    def __init__(self, uri: str, run: str) -> None:
        client = _imported("mlflow", "mlflow").MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name("evoloss")
        experiment = found.experiment_id if found else client.create_experiment("evoloss")
        self._client: Any = client
        self._run = client.create_run(experiment, run_name=run).info.run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One metric each."""
        for name, value in values.items():
            self._client.log_metric(self._run, name.replace(" ", "_"), value, step=step)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


_TRACKERS: dict[str, Callable[[str, str], Tracker]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow,
}  # fmt: skip
_PLACES = {"tensorboard": "FOLDER", "mlflow": "URI"}


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f'{module} is not installed: pip install "evoloss[{extra}]"') from None
