"""A loss for an image model of your own: a small convolutional network on handwritten digits.

    python examples/images.py

takes about ten seconds; with --quick it searches less, only to show that it runs.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import evoloss

QUICK = "--quick" in sys.argv

# Images are (N, channels, height, width); labels are whole numbers. Data is taken as it is, so
# scale it first. evoloss keeps a validation part for the search and a test part for the end.
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 1, 8, 8).astype("float32") / 16 - 0.5


def network() -> nn.Module:
    """Your model: raw outputs (N, 10). Called anew for every training."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


task = evoloss.supervised(
    images,
    labels,
    network=network,  # or a name: "resnet8", "wrn-16-2", "timm:resnet18", …
    training=evoloss.Training(lr=0.01, batch=64, steps=20 if QUICK else 150),
    name="digit images",
)

# A search worth the name takes the usual settings: leave these out.
size = {"population": 8, "generations": 2, "local_steps": 10, "finalists": 2}
if QUICK:
    size = {"population": 4, "generations": 1, "local_steps": 3, "finalists": 1}
result = evoloss.search(task, seed=0, **size)
print(f"found: {result.best}")

# Fresh networks under each loss, scored on the test images. A larger loss is also a larger step:
# the usual one may have that too.
losses = {
    "found": result.best.expression,
    "usual": evoloss.parse(task.usual_loss),
    "4 × usual": evoloss.parse(f"4 * ({task.usual_loss})"),
}
for row in evoloss.evaluate(task, losses, seeds=3).rows:
    scores = torch.tensor(row.scores)
    print(f"{row.label}: test {task.metric.name} {scores.mean():.4f} ± {scores.std():.4f}")

# From here on an ordinary module: in a training loop it stands where CrossEntropyLoss stood.
criterion = result.best.to_torch()
fresh = criterion(network()(torch.zeros(4, 1, 8, 8)), torch.arange(4))
print(f"the found loss of an untrained network: {fresh:.4f}")
