"""Image sets from every format they are published in, written byte by byte, and broken ones."""

import gzip
import io
import os
import pickle
import struct
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from evoloss.errors import UserError
from evoloss.tasks.registry import load_task

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """The hub's package counts as not installed, whether it is or not."""
    monkeypatch.setitem(sys.modules, "datasets", None)


def images(shape, classes=10, per_class=10, seed=0):
    """(x_train, y_train, x_test, y_test) of uint8 pixels, `per_class` training rows a class."""
    draws = np.random.default_rng(seed)
    y_train, y_test = np.tile(np.arange(classes), per_class), np.arange(classes)
    return (
        draws.integers(256, size=(len(y_train), *shape), dtype=np.uint8),
        y_train.astype(np.uint8),
        draws.integers(256, size=(len(y_test), *shape), dtype=np.uint8),
        y_test.astype(np.uint8),
    )


def idx(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.tobytes()


def write_idx(folder, arrays, packed=False):
    folder.mkdir(exist_ok=True)
    for name, array in zip(IDX, arrays, strict=True):
        content = idx(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def check_parts(task, arrays, channels):
    """All training images are in training or validation, scaled as one; the test part is kept."""
    x_train, y_train, _, y_test = arrays
    episodes = task.episodes
    assert len(episodes.train) + len(episodes.validation) == len(x_train)
    assert episodes.held_out_test.y.argmax(1).tolist() == y_test.tolist()
    used = episodes.train.x.double()
    axes = (0, 2, 3)
    torch.testing.assert_close(used.mean(axes), torch.zeros(channels).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(used.std(axes, correction=0), torch.ones(channels).double())
    shown = torch.cat([episodes.train.x, episodes.validation.x])
    labels = torch.cat([episodes.train.y, episodes.validation.y]).argmax(1)

    # Scaling keeps the order of brightness: the images match the originals by their ranks.
    def rank(image, label):
        return (*np.argsort(np.asarray(image, float).ravel(), kind="stable").tolist(), int(label))

    channel = [np.asarray(x if x.ndim == 2 else x[0]) for x in x_train]
    expected = {rank(image, label) for image, label in zip(channel, y_train, strict=True)}
    found = {rank(image[0], label) for image, label in zip(shown.numpy(), labels, strict=True)}
    assert found == expected


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["", "mnist"])
def test_idx_files(tmp_path, packed, place):
    arrays = images((28, 28))
    write_idx(tmp_path / place, arrays, packed)
    task = load_task("mnist", data_dir=tmp_path)
    check_parts(task, arrays, 1)
    assert task.network_name == "lenet5"
    training = task.training
    assert (training.lr, training.momentum, training.nesterov, training.weight_decay) == (
        0.01, 0.0, False, 0.0
    )  # fmt: skip
    assert (task.output, task.metric.name) == ("softmax", "error rate")


def test_npz(tmp_path):
    arrays = images((28, 28))
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "fashion-mnist.npz", **dict(zip(names, arrays, strict=True)))
    check_parts(load_task("fashion-mnist", data_dir=tmp_path), arrays, 1)


def test_npz_with_channels_last(tmp_path):
    arrays = images((32, 32, 3))
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "cifar10.npz", **dict(zip(names, arrays, strict=True)))
    first = [x.transpose(0, 3, 1, 2) if x.ndim > 1 else x for x in arrays]
    check_parts(load_task("cifar10", data_dir=tmp_path), first, 3)


def write_cifar10(folder, arrays, protocol=2):
    folder.mkdir(parents=True)
    x_train, y_train, x_test, y_test = arrays
    names = [f"data_batch_{number}" for number in range(1, 6)]
    batches = list(zip(names, np.split(x_train, 5), np.split(y_train, 5), strict=True))
    for name, x, y in [*batches, ("test_batch", x_test, y_test)]:
        batch = {b"batch_label": b"some", b"labels": y.tolist(), b"data": x.reshape(len(x), -1)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    (folder / "readme.html").write_text("not a batch")


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_archive_and_folder(tmp_path, packed):
    arrays = images((3, 32, 32))
    folder = tmp_path / "made" / "cifar-10-batches-py"
    write_cifar10(folder, arrays)
    data = folder.parent
    if packed:
        data = tmp_path / "data"
        data.mkdir()
        with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
    task = load_task("cifar10", data_dir=data)
    check_parts(task, arrays, 3)
    assert task.training.momentum == 0.9


def test_cifar100(tmp_path):
    arrays = images((3, 32, 32), classes=100, per_class=5)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
        batch = {b"fine_labels": y.tolist(), b"coarse_labels": [0], b"data": x.reshape(len(x), -1)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    check_parts(load_task("cifar100", data_dir=tmp_path), arrays, 3)


def test_svhn_writes_the_digit_0_as_10(tmp_path):
    arrays = images((3, 32, 32))
    for name, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
        labels = np.where(y == 0, 10, y)[:, None]
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": labels})
    check_parts(load_task("svhn", data_dir=tmp_path), arrays, 3)


def test_the_hub(tmp_path, monkeypatch):
    arrays = images((28, 28))
    asked = []

    def load_dataset(*names, cache_dir):
        asked.append((*names, cache_dir))
        return {"train": part(*arrays[:2]), "test": part(*arrays[2:])}

    def part(x, y):
        """The few calls of a data set that are used, over two columns."""
        columns = {"image": x, "label": y.astype(np.int64)}
        return SimpleNamespace(
            select_columns=lambda names: SimpleNamespace(
                with_format=lambda kind: [columns] and _Whole({n: columns[n] for n in names})
            )
        )

    class _Whole(dict):
        def __getitem__(self, key):
            return dict(self) if isinstance(key, slice) else super().__getitem__(key)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    check_parts(load_task("mnist", data_dir=tmp_path), arrays, 1)
    assert asked == [("ylecun/mnist", None, str(tmp_path))]


def test_training_images_of_the_test_set_are_left_out(tmp_path):
    arrays = images((28, 28))
    arrays[0][7], arrays[1][7] = arrays[2][3], arrays[3][3]
    write_idx(tmp_path, arrays)
    task = load_task("mnist", data_dir=tmp_path)
    assert len(task.episodes.train) + len(task.episodes.validation) == 99
    assert "1 training image that is in the test set too was left out" in task.notes


def complaint(name, folder):
    with pytest.raises(UserError) as caught:
        load_task(name, data_dir=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_set_says_how_to_get_it(tmp_path):
    message = complaint("mnist", tmp_path)
    assert all(f"{name}.gz" in message for name in IDX)
    assert f"into {tmp_path}" in message
    assert "install the package 'datasets' to fetch 'ylecun/mnist'" in message
    assert "add --data-dir DIR" in complaint("mnist", None)
    assert "put cifar-10-python.tar.gz from https://" in complaint("cifar10", tmp_path)


def test_a_hub_out_of_reach_says_how_else_to_get_it(tmp_path, monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no internet")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    message = complaint("mnist", tmp_path)
    assert f"{IDX[0]}.gz" in message
    assert "'ylecun/mnist' on the hub: ConnectionError: no internet" in message


def test_an_incomplete_set_names_what_is_missing(tmp_path):
    write_idx(tmp_path, images((28, 28)))
    (tmp_path / IDX[2]).unlink()
    assert f"lacks {IDX[2]} (or .gz)" in complaint("mnist", tmp_path)
    (tmp_path / "train_32x32.mat").write_bytes(b"")
    assert "cannot be read" in complaint("svhn", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"\0\0\x0d" + content[3:],
        lambda content: b"\0\0\x08\xff" + content[4:],
        lambda content: content[:4] + b"\xff" * 12 + content[16:],
    ],
)
def test_a_corrupt_idx_file_is_told(tmp_path, damage):
    write_idx(tmp_path, images((28, 28)))
    path = tmp_path / IDX[0]
    path.write_bytes(damage(path.read_bytes()))
    assert f"'{path}' cannot be read" in complaint("mnist", tmp_path)


def test_corrupt_archives_are_told(tmp_path):
    write_idx(tmp_path, images((28, 28)), packed=True)
    path = tmp_path / f"{IDX[0]}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"'{path}' cannot be read" in complaint("mnist", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 torn")
    assert "mnist.npz' cannot be read" in complaint("mnist", tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not a tar")
    assert "cifar-10-python.tar.gz' cannot be read" in complaint("cifar10", tmp_path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, images((3, 32, 32)))
    (folder / "data_batch_3").write_bytes(pickle.dumps(Hostile()))
    assert "which no image batch needs" in complaint("cifar10", tmp_path)
    assert not (tmp_path / "harm").exists()


def test_an_archive_that_points_outside_writes_nothing(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../../harm")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"harm"))
    assert "KeyError: 'data_batch_1'" in complaint("cifar10", tmp_path)
    assert not (tmp_path.parent.parent / "harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((100, 27, 28), np.uint8)}, "of shape (N, 28, 28) but (100, 27, 28)"),
        ({"x_test": np.full((10, 28, 28), np.nan)}, "the test images are not finite"),
        ({"y_train": np.zeros(99, np.uint8)}, "not one whole number for each of 100 images"),
        ({"y_train": np.zeros(100)}, "not one whole number for each of 100 images but float64"),
        ({"y_test": np.full(10, 10)}, "test labels from 10 to 10, not from 0 to 9"),
        ({"y_train": np.zeros(100, int)}, "class '1' of the training set of mnist has 0"),
        ({"y_test": None}, "lacks y_test: it has x_train, y_train, x_test"),
    ],
)
def test_wrong_arrays_are_told(tmp_path, change, message):
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = dict(zip(names, images((28, 28)), strict=True)) | change
    np.savez(tmp_path / "mnist.npz", **{n: a for n, a in arrays.items() if a is not None})
    assert message in complaint("mnist", tmp_path)


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the shared MNIST is not here")
def test_the_real_mnist():
    task = load_task("mnist", data_dir=SHARED)
    episodes = task.episodes
    assert len(episodes.train) == 50_000
    assert len(episodes.validation) == len(episodes.held_out_test) == 10_000
    assert not any("left out" in note for note in task.notes)
    shares = episodes.validation.y.mean(0) - episodes.train.y.mean(0)
    assert shares.abs().max() < 1e-3
