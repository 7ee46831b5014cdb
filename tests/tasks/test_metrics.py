"""Metrics against scikit-learn, batched against one by one, and NaN that never passes."""

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs

from evoloss.errors import UserError
from evoloss.tasks.metrics import METRICS, metric_named


@pytest.fixture
def draws():
    return np.random.default_rng(3)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("mse", theirs.mean_squared_error), ("mae", theirs.mean_absolute_error)],
)
def test_regression_metrics_are_scikit_learns(name, oracle, draws):
    prediction, target = draws.normal(size=(4, 30, 2)), draws.normal(size=(30, 2))
    ours = METRICS[name].function(torch.tensor(prediction), torch.tensor(target))
    np.testing.assert_allclose(ours, [oracle(target, each) for each in prediction])


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_classification_metrics_are_scikit_learns(classes, draws):
    prediction = draws.random(size=(2, 3, 40, classes))
    labels = draws.integers(max(classes, 2), size=40)
    target = labels[:, None].astype(float) if classes == 1 else np.eye(classes)[labels]
    found = (prediction[..., 0] > 0.5).astype(int) if classes == 1 else prediction.argmax(-1)
    expected = [[theirs.accuracy_score(labels, each) for each in row] for row in found]
    both = torch.tensor(prediction), torch.tensor(target)
    np.testing.assert_allclose(METRICS["accuracy"].function(*both), expected)
    np.testing.assert_allclose(METRICS["error rate"].function(*both), 1 - np.array(expected))


def test_errors_are_lower_for_the_better():
    right, wrong = torch.eye(3), torch.eye(3).roll(1, 0)
    for metric in METRICS.values():
        errors = metric.errors(torch.stack([right, wrong]), right)
        assert errors.dtype == torch.float64
        assert errors[0] < errors[1]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("classes", [1, 3])
def test_nan_stays_nan_and_harms_nobody_else(name, classes):
    target = torch.ones(4, 1) if classes == 1 else torch.eye(3)[[0, 0, 0, 0]]
    prediction = target.repeat(2, 1, 1)
    prediction[1, 2, 0] = torch.nan  # arg max would take it for class 0, which is right
    errors = METRICS[name].errors(prediction, target)
    assert errors.isnan().tolist() == [False, True]


def test_an_unknown_metric_is_told():
    with pytest.raises(UserError, match=r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"):
        metric_named("acuracy")
