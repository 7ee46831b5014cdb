"""Reads image sets from the formats they are published in: idx, CIFAR archives, .mat, .npz.

Nothing in a file is executed: CIFAR's pickles go through an unpickler that knows arrays and plain
containers only, and .npz files are read without pickles.
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.plugin import describe
from evoloss.tasks.splits import Array

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


@dataclass(frozen=True)
class Images:
    """An image set as read. x: (N, height, width[, channels]) or channels first; y: (N,)."""

    origin: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what broken files raise into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each of the libraries that read has errors of its own
        reason = describe(error)
        raise UserError(f"'{path}' cannot be read ({reason}): download it again") from error


def read_npz(path: Path) -> Images:
    """An .npz file with x_train, y_train, x_test, y_test (Keras' layout)."""
    with _readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        missing = [name for name in NPZ_ARRAYS if name not in arrays]
        if missing:
            raise UserError(f"'{path}' lacks {', '.join(missing)}: it has {', '.join(arrays)}")
        return Images(str(path), *(arrays[name] for name in NPZ_ARRAYS))


def find_idx(folder: Path) -> dict[str, Path]:
    """The idx files that a folder holds, by name without .gz."""
    found: dict[str, Path] = {}
    for name in IDX_FILES:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                found.setdefault(name, path)
    return found


def read_idx_set(folder: Path, files: dict[str, Path]) -> Images:
    """The four idx files of MNIST and its look-alikes. Raises UserError if one is missing."""
    missing = [name for name in IDX_FILES if name not in files]
    if missing:
        raise UserError(f"'{folder}' lacks {', '.join(missing)} (or .gz): put them there too")
    return Images(str(folder), *(read_idx(files[name]) for name in IDX_FILES))


def read_idx(path: Path) -> Array:
    """The uint8 array of one idx file: 0, 0, 8 (unsigned byte), rank, big-endian sizes, bytes."""
    with _readable(path):
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        if len(content) < 4 or content[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of unsigned bytes")
        rank = content[3]
        start = 4 + 4 * rank
        shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
        values = np.frombuffer(content, np.uint8, offset=start)
        if len(shape) != rank or values.size != np.prod(shape, dtype=np.int64):
            raise ValueError(f"{values.size} bytes of data for the shape {shape}")
        return values.reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what CIFAR's batches consist of; a pickle that names anything else is refused."""

    _admitted: ClassVar = {
        "_reconstruct": np.empty(0).__reduce__()[0],  # wherever this NumPy keeps it
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }
    _modules: ClassVar = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module: str, name: str) -> Any:
        if module in self._modules and name in self._admitted:
            return self._admitted[name]
        if (module, name) == ("_codecs", "encode"):  # how old protocols write bytes
            return _latin1
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no image batch needs")


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def read_cifar(path: Path, training: tuple[str, ...], test: str, labels: str) -> Images:
    """CIFAR's Python version, as the .tar.gz archive or the folder that was extracted from it.

    training, test: the names of the batches; labels: their key for the labels.
    """
    with _readable(path):
        read = _members(path)
        batches = [_batch(read(name), labels) for name in training]
        x_test, y_test = _batch(read(test), labels)
        x_train = np.concatenate([x for x, _ in batches])
        y_train = np.concatenate([y for _, y in batches])
        return Images(str(path), x_train, y_train, x_test, y_test)


def _members(path: Path) -> Callable[[str], bytes]:
    if path.is_dir():
        return lambda name: (path / name).read_bytes()
    with tarfile.open(path) as archive:
        content = {}
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                content[Path(member.name).name] = file.read()
    return lambda name: content[name]


def _batch(content: bytes, labels: str) -> tuple[Array, Array]:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    pixels = np.asarray(batch[b"data"])
    return pixels.reshape(-1, 3, 32, 32), np.asarray(batch[labels.encode()])


def read_svhn(folder: Path) -> Images:
    """SVHN's cropped digits: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    arrays: list[Array] = []
    for name in SVHN_FILES:
        path = folder / name
        if not path.is_file():
            raise UserError(f"'{folder}' lacks {name}: put it there too")
        with _readable(path):
            content = loadmat(path)
            arrays += [content["X"].transpose(3, 0, 1, 2), content["y"].ravel() % 10]
    return Images(str(folder), *arrays)


def read_hub(
    repository: str, configuration: str | None, image: str, label: str, folder: Path | None
) -> Images:
    """A data set of the Hugging Face hub. Raises ImportError without the package `datasets`."""
    import importlib

    load_dataset = importlib.import_module("datasets").load_dataset
    cache = None if folder is None else str(folder)
    parts = load_dataset(repository, configuration, cache_dir=cache)
    arrays: list[Array] = []
    for name in ("train", "test"):
        columns = parts[name].select_columns([image, label]).with_format("numpy")[:]
        arrays += [np.asarray(columns[image]), np.asarray(columns[label])]
    return Images(f"the Hugging Face hub ({repository})", *arrays)
