"""Tasks from arrays, tensors and torch datasets, and the mistakes one can make with them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from evoloss.errors import ShapeError, UserError
from evoloss.tasks.custom import supervised
from evoloss.tasks.task import Metric, Training

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(60, 4)).astype(np.float32)
CLASSES = DRAWS.integers(0, 3, 60)
VALUES = DRAWS.normal(size=60)


class Listed(Dataset):
    """A data set without tensors of its own: items only."""

    def __init__(self, x, y):
        self.items = list(zip(torch.as_tensor(x), y.tolist(), strict=True))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    "data",
    [(X, CLASSES), (torch.from_numpy(X), torch.from_numpy(CLASSES)),
     (TensorDataset(torch.from_numpy(X), torch.from_numpy(CLASSES)),), (Listed(X, CLASSES),),
     (X.tolist(), CLASSES.tolist())],
)  # fmt: skip
def test_all_forms_of_data_make_the_same_task(data):
    task = supervised(*data)
    known = supervised(X, CLASSES)
    assert torch.equal(task.episodes.train.x, known.episodes.train.x)
    assert torch.equal(task.episodes.held_out_test.y, known.episodes.held_out_test.y)
    assert (task.output, task.metric.name, task.usual_loss) == (
        "softmax", "error rate", "-y * log(f)"
    )  # fmt: skip
    assert task.source is None


def test_rows_are_taken_as_they_are():
    train = supervised(X, CLASSES).episodes.train
    rows = {tuple(row): number for row, number in zip(X.tolist(), CLASSES, strict=True)}
    for x, y in zip(train.x, train.y, strict=True):
        assert rows[tuple(x.tolist())] == y.argmax()


def test_kinds():
    assert supervised(X, VALUES).episodes.train.y.shape == (36, 1)
    assert supervised(X, VALUES).output == "identity"
    assert supervised(X, CLASSES, kind="regression").output == "identity"
    assert supervised(X, CLASSES > 0).output == "softmax"
    assert supervised(X, np.array(list("abc"))[CLASSES]).episodes.train.y.shape == (36, 3)
    soft = np.random.default_rng(1).dirichlet(np.ones(3), 60)
    assert supervised(X, soft, kind="classification").output == "softmax"
    assert supervised(X, soft, kind="regression").output == "identity"
    binary = supervised(X, (CLASSES > 0)[:, None] * 1.0, kind="classification")
    assert binary.output == "sigmoid"
    assert binary.usual_loss == "-(y * log(f) + (1 - y) * log(1 - f))"


def test_own_network_metric_and_training():
    metric = Metric("worst", lambda prediction, target: (prediction - target).abs().max())
    task = supervised(
        X, VALUES, network=lambda: nn.Linear(4, 1), metric=metric, name="mine",
        training=Training(lr=0.1),
    )  # fmt: skip
    assert isinstance(task.network(), nn.Linear)
    assert (task.metric, task.name, task.training.lr) == (metric, "mine", 0.1)
    assert supervised(X, VALUES, metric="mae").metric.name == "mae"


def test_given_parts():
    task = supervised(X[:40], VALUES[:40], test=(X[40:], VALUES[40:]))
    sizes = [len(part) for part in (task.episodes.train, task.episodes.validation)]
    assert sizes == [32, 8]
    held_out = Listed(X[50:], VALUES[50:])
    task = supervised(X[:40], VALUES[:40], validation=(X[40:50], VALUES[40:50]), test=held_out)
    np.testing.assert_allclose(task.episodes.held_out_test.x, X[50:])
    np.testing.assert_allclose(task.episodes.validation.x, X[40:50])


def test_texts_reach_a_recurrent_network():
    text = np.random.default_rng(0).integers(0, 9, (60, 5))
    text[:, 0] = 9
    task = supervised(text, CLASSES, network="char-gru")
    assert task.episodes.train.x.dtype == torch.int64
    assert task.network().characters == 9
    assert supervised(text, CLASSES).episodes.train.x.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": VALUES[:9]}, "give one target for each input"),
        ({"y": None}, "give x and y, or a torch dataset"),
        ({"y": np.where(VALUES > 0, np.nan, VALUES)}, "target of 'custom' has"),
        ({"x": np.full((60, 2), np.inf), "y": VALUES}, "inputs of 'custom' have 120"),
        ({"x": np.full((60, 2), "a"), "y": VALUES}, "networks take numbers"),
        ({"y": np.zeros(60)}, "is constant"),
        ({"y": np.zeros(60, int)}, "one class only"),
        ({"y": np.zeros((60, 2, 2))}, "it wants (N,) or (N, C)"),
        ({"y": X * 9, "kind": "classification"}, "probabilities in [0, 1]"),
        ({"x": X[:3], "y": VALUES[:3]}, "has 3 rows: a task needs at least 10"),
        ({"y": VALUES, "validation": (X, VALUES)}, "give test data too"),
        ({"y": VALUES, "test": (X[:5], VALUES[:5])}, "rows occur in the test data too"),
        ({"y": VALUES, "test": (X[:5], X[:5])}, "differ in shape"),
        ({"y": VALUES, "metric": "msee"}, "did you mean 'mse'?"),
        ({"y": VALUES, "network": nn.Linear(4, 1)}, "not a function that makes one"),
        ({"y": VALUES, "network": lambda: 3}, "must return a torch.nn.Module"),
        ({"y": VALUES, "network": nn.Identity}, "returns (2, 4) for 2 inputs"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError) as caught:
        supervised(**({"x": X} | arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_of_the_wrong_width_is_a_shape_error():
    with pytest.raises(ShapeError, match=r"task 'custom' wants \(2, 3\): change its last layer"):
        supervised(X, CLASSES, network=lambda: nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("mlp:1000000000000000000", "network 'mlp:1000000000000000000' cannot be made: "),
        (lambda: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda: 3, "returns a int: it must return a torch.nn.Module"),
    ],
)
def test_a_network_that_cannot_be_made_is_told(network, message):
    with pytest.raises(UserError) as caught:
        supervised(X, CLASSES, network=network)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
