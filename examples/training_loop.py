"""A loss that was found, in a plain PyTorch training loop: the loop needs torch and nothing else.

    python examples/training_loop.py

takes a few seconds; with --quick it trains less, only to show that it runs. The file
loss.py beside this file is what these two commands write; put your own in its place:

    evoloss search digits --generations 5 --seed 1
    evoloss export runs/digits-1 -o loss.py
"""

import sys

import torch
from loss import DiscoveredLoss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 2 if "--quick" in sys.argv else 20


def spirals(rows: int, seed: int) -> TensorDataset:
    """Points on three arms of a spiral, with the number of the arm: your data set goes here."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (rows,), generator=generator)
    radius = torch.rand(rows, generator=generator)
    noise = 0.2 * torch.randn(rows, generator=generator)
    angle = 4 * radius + 2 * torch.pi / 3 * arm + noise
    return TensorDataset(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arm)


def train(criterion: nn.Module, lr: float, seed: int) -> nn.Module:
    """The usual loop. The criterion is the only thing in it that is not usual."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    optimiser = torch.optim.SGD(network.parameters(), lr, momentum=0.9, nesterov=True)
    for _ in range(EPOCHS):
        for x, y in DataLoader(spirals(2000, seed=0), batch_size=64, shuffle=True):
            optimiser.zero_grad()
            loss = criterion(network(x), y)  # raw outputs (B, C) and class numbers (B,)
            loss.backward()
            optimiser.step()
    return network


def error(network: nn.Module) -> float:
    """Share of new points on the wrong arm."""
    x, arm = spirals(2000, seed=1).tensors
    with torch.no_grad():
        return (network(x).argmax(1) != arm).double().mean().item()


usual = nn.CrossEntropyLoss()
# A larger loss is also a larger step, so the usual loss gets one too.
for name, criterion, lr in (
    ("found", DiscoveredLoss(), 0.01),
    ("usual", usual, 0.01),
    ("usual, 4 × the rate", usual, 0.04),
):
    errors = torch.tensor([error(train(criterion, lr, seed)) for seed in range(3)])
    print(f"{name}: error {errors.mean():.4f} ± {errors.std():.4f} after {EPOCHS} epochs")
