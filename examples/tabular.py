"""A loss for a table of your own: arrays, a network, and the metric that you really care about.

    python examples/tabular.py

takes a few seconds; with --quick it searches less, only to show that it runs.
"""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import evoloss

# Your data: inputs (N, features), targets (N,). Whole numbers are classes, other numbers are
# regressed. The test rows are held back here, so that they are scaled by the training rows alone.
x, y = load_breast_cancer(return_X_y=True)
x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
scaler = StandardScaler().fit(x)
x, x_test = scaler.transform(x), scaler.transform(x_test)


def network() -> nn.Module:
    """Your model: raw outputs, one a class. Called anew for every training."""
    return nn.Sequential(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))


def balanced_accuracy(prediction: Tensor, target: Tensor) -> float:
    """Your metric, which need not be differentiable. Both (N, C), the target one-hot."""
    return balanced_accuracy_score(target.argmax(1), prediction.argmax(1))


task = evoloss.supervised(
    x,
    y,
    test=(x_test, y_test),  # leave it out and evoloss splits
    network=network,
    metric=evoloss.Metric("balanced accuracy", balanced_accuracy, higher_is_better=True),
    training=evoloss.Training(lr=0.01, batch=64, steps=100),
    name="breast cancer",
)

# A search worth the name takes the usual settings: leave these out.
size = {"population": 10, "generations": 3, "local_steps": 20, "finalists": 3}
if "--quick" in sys.argv:
    size = {"population": 4, "generations": 1, "local_steps": 3, "finalists": 1}
result = evoloss.search(task, seed=0, **size)

print(f"found: {result.best}")
print("the best of each complexity, on validation rows:")
for loss in result.front:
    print(f"  {loss.complexity:2} nodes, {task.metric.shown(loss.error):.4f}: {loss}")

# What it is worth: fresh networks under each loss, scored on the test rows.
# A larger loss is also a larger step: the usual loss may have one too.
losses = {
    "found": result.best.expression,
    "usual": evoloss.parse(task.usual_loss),
    "4 × usual": evoloss.parse(f"4 * ({task.usual_loss})"),
}
for row in evoloss.evaluate(task, losses, seeds=3).rows:
    scores = torch.tensor(row.scores)
    print(f"{row.label}: test {task.metric.name} {scores.mean():.4f} ± {scores.std():.4f}")
