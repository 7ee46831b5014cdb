"""Makes a task from a user's own arrays, tensors or torch datasets, in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from evoloss.errors import UserError
from evoloss.tasks.compose import Kind, compose
from evoloss.tasks.metrics import metric_named
from evoloss.tasks.networks import takes_numbers
from evoloss.tasks.options import SPLIT_SEED
from evoloss.tasks.splits import Array, Rows, as_splits, completed
from evoloss.tasks.targets import Target, read_target
from evoloss.tasks.task import Metric, NetworkFactory, Task, Training
from evoloss.wording import counted

Pairs = Dataset[Any] | tuple[Any, Any]
"""A torch dataset of (x, y), or a tuple of arrays or tensors (all x, all y)."""


def supervised(
    x: Any,
    y: Any = None,
    *,
    kind: Kind | None = None,
    network: str | NetworkFactory = "mlp:64,64",
    metric: Metric | str | None = None,
    name: str = "custom",
    validation: Pairs | None = None,
    test: Pairs | None = None,
    seed: int = SPLIT_SEED,
    training: Training | None = None,
) -> Task:
    """A task from (N, ...) inputs and (N,) or (N, C) targets, or from a torch dataset as `x`.

    Whole numbers, truth values and text as y are classes (one-hot, softmax); other numbers are
    regressed. With kind="classification", (N, C) targets in [0, 1] are taken as probabilities
    (softmax; sigmoid if C = 1). Data is taken as it is: scale it as the network needs it.
    validation, test: your own parts; what is not given is cut from x and y by `seed`.
    Raises: UserError for unusable data, or if a row occurs in two of the parts.
    """
    if validation is not None and test is None:
        raise UserError("validation data without test data: give test data too, or neither")
    given = [_arrays((x, y) if y is not None else x)]
    given += [_arrays(part) for part in (validation, test) if part is not None]
    values = _joined([target for _, target in given])
    kind = kind or ("regression" if values.dtype.kind == "f" else "classification")
    target = _target(values, kind, name)
    ends = np.cumsum([len(inputs) for inputs, _ in given])[:-1]
    rows = [
        Rows(_inputs(inputs, network, name), part, target.class_names)
        for (inputs, _), part in zip(given, np.split(target.y, ends), strict=True)
    ]
    parts = completed(rows, seed, f"'{name}'", f"the training data of '{name}'")
    return compose(
        name,
        as_splits(parts, len(target.class_names) or None),
        kind,
        network,
        metric=metric_named(metric) if isinstance(metric, str) else metric,
        training=training,
    )


def _arrays(pairs: Any) -> tuple[Array, Array]:
    """All inputs and all targets as two arrays."""
    if isinstance(pairs, TensorDataset):
        pairs = pairs.tensors
    elif isinstance(pairs, Dataset):
        items = [pairs[index] for index in range(len(pairs))]  # type: ignore[arg-type]
        pairs = [torch.stack([torch.as_tensor(item[side]) for item in items]) for side in (0, 1)]
    if not isinstance(pairs, tuple | list) or len(pairs) != 2:
        raise UserError("data wants inputs and targets: give x and y, or a torch dataset of both")
    x, y = (_array(side) for side in pairs)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise UserError(f"inputs {x.shape} and targets {y.shape}: give one target for each input")
    return (x[:, None] if x.ndim == 1 else x), y


def _array(values: Any) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _joined(targets: list[Array]) -> Array:
    shapes = {values.shape[1:] for values in targets}
    if len(shapes) > 1:
        raise UserError(f"the targets of the parts differ in shape: {sorted(shapes)}")
    return np.concatenate(targets)


def _target(values: Array, kind: Kind, name: str) -> Target:
    what = f"target of '{name}'"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{what} has {_not_finite(values)}")
    if values.ndim > 2:
        raise UserError(f"{what} has the shape {values.shape}: it wants (N,) or (N, C)")
    if kind == "regression" or values.ndim == 1:
        return read_target(values, kind, what)
    if values.min() < 0 or values.max() > 1:
        raise UserError(f"{what}: (N, C) targets of a classification are probabilities in [0, 1]")
    return Target(values.astype(np.float64), kind)


def _not_finite(values: Array) -> str:
    return counted(int(np.count_nonzero(~np.isfinite(values))), "missing or infinite value")


def _inputs(x: Array, network: str | NetworkFactory, name: str) -> Array:
    """float32, but int64 is left for networks that may read it as numbers of characters."""
    if x.dtype.kind not in "biuf":
        raise UserError(f"inputs of '{name}' are {x.dtype}: networks take numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise UserError(f"inputs of '{name}' have {_not_finite(x)}")
    kept = x.dtype == np.int64 and not takes_numbers(network)
    return x if kept else x.astype(np.float32)
