"""Diabetes, digits and California housing: sizes, scaling, disjointness, what to do if missing."""

from urllib.error import URLError

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits

from evoloss.errors import UserError
from evoloss.tasks.registry import load_task


def parts(task):
    episodes = task.episodes
    return episodes.train, episodes.validation, episodes.held_out_test


def as_set(data):
    return {tuple(row.tolist()) for row in torch.cat([data.x, data.y], 1)}


@pytest.mark.parametrize(("name", "count"), [("diabetes", 442), ("digits", 1797)])
def test_parts_are_disjoint_and_complete(name, count):
    sets = [as_set(data) for data in parts(load_task(name))]
    assert sum(map(len, sets)) == len(set.union(*sets)) == count
    assert [round(len(each) / count, 1) for each in sets] == [0.6, 0.2, 0.2]


def test_diabetes_is_standardised_by_its_training_part():
    task = load_task("diabetes")
    train = task.episodes.train
    for values in (train.x, train.y):
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones(values.shape[1]))
    assert abs(task.episodes.held_out_test.x.mean()) > 1e-4
    y = load_diabetes().target
    assert (task.output, task.usual_loss, task.metric.name) == (
        "identity", "square(y - f)", "mse"
    )  # fmt: skip
    assert task.network_name == "linear"
    scale = float(task.notes[0].split("times ")[1].split()[0])
    assert scale == pytest.approx(y.var(), rel=0.2)


def test_digits_are_scaled_as_a_whole():
    task = load_task("digits")
    train = task.episodes.train
    assert train.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.x.std().item() == pytest.approx(1, abs=1e-4)
    assert len(train.x.unique()) == len(np.unique(load_digits().data))  # one factor for all pixels
    assert (train.y.sum(1) == 1).all()
    assert (task.output, task.metric.name, task.network_name) == (
        "softmax", "error rate", "mlp:64,64"
    )  # fmt: skip


def test_the_usual_training_is_the_papers():
    training = load_task("diabetes").training
    assert (training.lr, training.batch, training.momentum, training.nesterov) == (
        0.01, 128, 0.9, True
    )  # fmt: skip
    assert (training.weight_decay, training.steps) == (5e-4, 500)


def test_california_is_read_from_the_data_directory(tmp_path):
    draws = np.random.default_rng(0)
    joblib.dump(draws.uniform(1, 9, (60, 9)), tmp_path / "cal_housing_py3.pkz", compress=1)
    task = load_task("california", data_dir=tmp_path)
    assert task.episodes.train.x.shape == (36, 8)
    assert task.network_name == "mlp:64,64"


def test_california_says_how_to_get_it(tmp_path, monkeypatch):
    def no_internet(*_, **__):
        raise URLError("no internet")

    monkeypatch.setattr("sklearn.datasets._base.urlretrieve", no_internet)
    with pytest.raises(UserError) as caught:
        load_task("california", data_dir=tmp_path)
    message = str(caught.value)
    assert "no internet" in message
    assert f"copy cal_housing_py3.pkz to {tmp_path} and add --data-dir {tmp_path}" in message
    assert "\n" not in message
