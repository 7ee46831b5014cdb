"""Small data sets that scikit-learn ships (diabetes, digits) or fetches (California housing)."""

from __future__ import annotations

import warnings

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.compose import compose
from evoloss.tasks.options import Options
from evoloss.tasks.plugin import describe
from evoloss.tasks.splits import Array, Parts, Rows, as_splits, standardise, three_parts
from evoloss.tasks.task import Task


def diabetes(options: Options) -> Task:
    """Regression: disease progression after a year from 10 measurements (442 patients)."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return _regression("diabetes", x, y, options.network or "linear", options.seed)


def california(options: Options) -> Task:
    """Regression: median house value of 20,640 Californian districts from 8 numbers."""
    from sklearn.datasets import fetch_california_housing

    try:
        with warnings.catch_warnings(action="ignore"):  # of the one retry; the error says enough
            x, y = fetch_california_housing(
                data_home=options.data_dir, return_X_y=True, n_retries=1, delay=0.1
            )
    except (OSError, EOFError) as error:
        place = options.data_dir or "DIR"
        raise UserError(
            f"california housing is neither in {options.data_dir or 'the cache of scikit-learn'} "
            f"nor could it be downloaded ({describe(error)}): where there is internet, run python "
            f"-c \"from sklearn.datasets import *; fetch_california_housing(data_home='.')\", "
            f"copy cal_housing_py3.pkz to {place} and add --data-dir {place}"
        ) from error
    return _regression("california", x, y, options.network or "mlp:64,64", options.seed)


def digits(options: Options) -> Task:
    """Classification: 1,797 handwritten digits of 8 × 8 pixels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    parts = three_parts(Rows(x, y), options.seed, "digits")
    scaled = standardise(parts.train.x, parts.validation.x, parts.test.x, axis=(0, 1))
    parts = _with(parts, scaled)
    note = "pixels scaled to mean 0, standard deviation 1 over the training images"
    return compose(
        "digits",
        as_splits(parts, class_count=10),
        "classification",
        options.network or "mlp:64,64",
        notes=(note,),
    )


def _regression(name: str, x: Array, y: Array, network: str, seed: int) -> Task:
    parts = three_parts(Rows(x, y[:, None]), seed, name)
    deviation = float(np.std(parts.train.y))
    targets = standardise(parts.train.y, parts.validation.y, parts.test.y)
    inputs = standardise(parts.train.x, parts.validation.x, parts.test.x)
    note = (
        "inputs and target standardised by the training data; the MSE is on the standardised "
        f"target (times {deviation**2:.4g} in the target's own units)"
    )
    splits = as_splits(_with(parts, inputs, targets))
    return compose(name, splits, "regression", network, notes=(note,))


def _with(parts: Parts, x: list[Array], y: list[Array] | None = None) -> Parts:
    old = (parts.train, parts.validation, parts.test)
    targets = y if y is not None else [rows.y for rows in old]
    return Parts(*(Rows(a, b) for a, b in zip(x, targets, strict=True)))
