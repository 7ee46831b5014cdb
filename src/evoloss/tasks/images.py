"""Image classification: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100, SVHN from files or the hub.

The test part is the published one, untouched; validation images are taken from the training set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.compose import compose
from evoloss.tasks.image_files import (
    IDX_FILES,
    SVHN_FILES,
    Images,
    find_idx,
    read_cifar,
    read_hub,
    read_idx_set,
    read_npz,
    read_svhn,
)
from evoloss.tasks.options import Options
from evoloss.tasks.plugin import describe
from evoloss.tasks.splits import (
    Array,
    Parts,
    Rows,
    as_splits,
    hold_out_validation,
    shared_rows,
    standardise,
)
from evoloss.tasks.task import Task, Training
from evoloss.wording import counted

PAPER = Training()
PLAIN = Training(momentum=0.0, nesterov=False, weight_decay=0.0, rejection_steps=100)


@dataclass(frozen=True)
class ImageSet:
    """What is known of a published image set.

    find: reads the published files of a folder; None if the folder has none of them.
    files: how these files are called; home: where they are published.
    hub: repository, configuration, image column and label column on the Hugging Face hub.
    """

    name: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    find: Callable[[Path], Images | None]
    files: str
    home: str
    hub: tuple[str, str | None, str, str]
    training: Training


def mnist(options: Options) -> Task:
    """Handwritten digits (LeCun et al. 1998); plain gradient descent, as in the EvoMAL paper."""
    return load_images(
        ImageSet(
            "mnist",
            (1, 28, 28),
            10,
            _find_idx,
            _gz(IDX_FILES),
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            ("ylecun/mnist", None, "image", "label"),
            PLAIN,
        ),
        options,
    )


def fashion_mnist(options: Options) -> Task:
    """Articles of clothing in the format of MNIST (Xiao et al. 2017)."""
    return load_images(
        ImageSet(
            "fashion-mnist",
            (1, 28, 28),
            10,
            _find_idx,
            _gz(IDX_FILES),
            "https://github.com/zalandoresearch/fashion-mnist",
            ("zalando-datasets/fashion_mnist", None, "image", "label"),
            PLAIN,
        ),
        options,
    )


def cifar10(options: Options) -> Task:
    """Small colour photographs of ten kinds of things (Krizhevsky 2009)."""
    batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    return load_images(
        ImageSet(
            "cifar10",
            (3, 32, 32),
            10,
            _finder_of_cifar(
                ("cifar-10-batches-py", "cifar-10-python.tar.gz"), batches, "test_batch", "labels"
            ),
            "cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            ("uoft-cs/cifar10", None, "img", "label"),
            PAPER,
        ),
        options,
    )


def cifar100(options: Options) -> Task:
    """Small colour photographs of a hundred kinds of things (Krizhevsky 2009)."""
    return load_images(
        ImageSet(
            "cifar100",
            (3, 32, 32),
            100,
            _finder_of_cifar(
                ("cifar-100-python", "cifar-100-python.tar.gz"), ("train",), "test", "fine_labels"
            ),
            "cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            ("uoft-cs/cifar100", None, "img", "fine_label"),
            PAPER,
        ),
        options,
    )


def svhn(options: Options) -> Task:
    """Digits cropped from photographs of house numbers (Netzer et al. 2011)."""
    return load_images(
        ImageSet(
            "svhn",
            (3, 32, 32),
            10,
            lambda folder: read_svhn(folder) if (folder / SVHN_FILES[0]).is_file() else None,
            " and ".join(SVHN_FILES),
            "http://ufldl.stanford.edu/housenumbers",
            ("ufldl-stanford/svhn", "cropped_digits", "image", "label"),
            PAPER,
        ),
        options,
    )


def load_images(known: ImageSet, options: Options) -> Task:
    """The task of an image set, from the data directory or the hub.

    Training images that occur in the test set too are left out, so that the test set stays the
    published one and yet holds nothing that was seen in training.
    """
    images = _read(known, options.data_dir)
    train = _rows(known, images.origin, "training", images.x_train, images.y_train)
    test = _rows(known, images.origin, "test", images.x_test, images.y_test)
    leaked = shared_rows(train, test)
    train, validation = hold_out_validation(
        train.take(~leaked), options.seed, f"the training set of {known.name}"
    )
    axis = (0, 2, 3)  # one mean and deviation per colour channel
    x_train, x_validation, x_test = standardise(train.x, validation.x, test.x, axis=axis)
    parts = Parts(Rows(x_train, train.y), Rows(x_validation, validation.y), Rows(x_test, test.y))
    notes = [
        f"read from {images.origin}; {len(validation):,} of the training images are for validation"
    ]
    if leaked.any():
        notes.append(
            counted(
                leaked.sum(),
                "training image that is in the test set too was left out",
                "training images that are in the test set too were left out",
            )
        )
    return compose(
        known.name,
        as_splits(parts, known.classes),
        "classification",
        options.network or "lenet5",
        training=known.training,
        notes=tuple(notes),
    )


def _read(known: ImageSet, folder: Path | None) -> Images:
    for place in () if folder is None else (folder / known.name, folder):
        if (place / f"{known.name}.npz").is_file():
            return read_npz(place / f"{known.name}.npz")
        found = known.find(place)
        if found is not None:
            return found
    where = "" if folder is None else f" in '{folder}' or '{folder / known.name}'"
    target = folder or "a folder DIR"
    how = (
        f"{known.name} not found{where}: put {known.files} from {known.home} "
        f"(or {known.name}.npz with x_train, y_train, x_test, y_test) into {target}"
        + ("" if folder else " and add --data-dir DIR")
    )
    try:
        return read_hub(*known.hub, folder)
    except ImportError as error:
        raise UserError(
            f"{how}; or install the package 'datasets' to fetch '{known.hub[0]}' from the "
            "Hugging Face hub"
        ) from error
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise UserError(f"{how} ('{known.hub[0]}' on the hub: {describe(error)})") from error


def _rows(known: ImageSet, origin: str, part: str, x: Array, y: Array) -> Rows:
    """Images with the channels first and integer labels, or a UserError that says what is wrong."""
    channels, height, width = known.shape
    if x.shape[1:] == (height, width) and channels == 1:
        x = x[:, None]
    elif x.shape[1:] == (height, width, channels):
        x = x.transpose(0, 3, 1, 2)
    if x.shape[1:] != known.shape or not np.isfinite(x).all():
        raise UserError(
            f"{known.name} from {origin}: the {part} images are not finite numbers of shape "
            f"(N, {height}, {width}{'' if channels == 1 else f', {channels}'}) but {x.shape}"
        )
    y = y.reshape(len(y), -1)
    if y.shape != (len(x), 1) or not np.issubdtype(y.dtype, np.integer):
        raise UserError(
            f"{known.name} from {origin}: the {part} labels are not one whole number for each of "
            f"{len(x)} images but {y.dtype} of shape {y.shape}"
        )
    if y.min(initial=0) < 0 or y.max(initial=0) >= known.classes:
        raise UserError(
            f"{known.name} from {origin}: {part} labels from {y.min()} to {y.max()}, "
            f"not from 0 to {known.classes - 1}"
        )
    return Rows(x, y[:, 0].astype(np.int64), tuple(map(str, range(known.classes))))


def _gz(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}.gz" for name in names)


def _find_idx(folder: Path) -> Images | None:
    files = find_idx(folder)
    return read_idx_set(folder, files) if files else None


def _finder_of_cifar(
    names: tuple[str, str], training: tuple[str, ...], test: str, labels: str
) -> Callable[[Path], Images | None]:
    def find(folder: Path) -> Images | None:
        for name in names:
            if (folder / name).exists():
                return read_cifar(folder / name, training, test, labels)
        return None

    return find
