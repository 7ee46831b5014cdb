"""A linear network under weighted squared losses, where all that training does has a closed form.

The loss is mean u² (v y − w Xθ)², so its gradient is Aθ − b, and the task loss mean (y − Xθ)².
"""

import torch
from torch import nn

from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, VmapStack
from evoloss.lang.parse import parse
from evoloss.local_search.inner import Inner

SQUARED = parse("square(y - f)")
FEATURES, ROWS = 3, 12
PHI = ((0.9, 1.2, 0.8), (1.1, 0.7, 1.3))
STACKS = {
    "dense": lambda module: DenseStack(module, dense_layers(module)),
    "vmap": VmapStack,
    "loop": LoopStack,
}


class Quadratic:
    """The task, and T as a differentiable function of φ = (u, v, w)."""

    def __init__(self, sgd: SGD, dtype=torch.float64, stack="dense", losses=(SQUARED, SQUARED)):
        self.sgd, self.dtype = sgd, dtype
        generator = torch.Generator().manual_seed(4)

        def draws(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        mix = draws(FEATURES, FEATURES) / 2 + torch.eye(FEATURES)
        self.train, self.validation = (
            (x, x @ draws(FEATURES, 1) + 0.3 * draws(ROWS, 1))
            for x in (draws(ROWS, FEATURES) @ mix, draws(ROWS, FEATURES))
        )
        self.start = draws(1, FEATURES)
        module = nn.Linear(FEATURES, 1, bias=False).to(dtype)
        usual = LossPopulation([SQUARED] * len(losses), "none")
        self.inner = Inner(STACKS[stack](module), LossPopulation(losses), usual, "identity", sgd)
        self.phi = self.inner.losses.initial_phi()
        for row, given in zip(self.phi, PHI, strict=False):
            row[: len(given)] = torch.tensor(given, dtype=torch.float64)

    def arguments(self, steps, start=None):
        """What a hyper-gradient takes before its rng, in the task's precision."""
        start = self.start if start is None else start

        def cast(pair):
            return tuple(each.to(self.dtype) for each in pair)

        batches = [cast(self.train)] * steps
        return self.inner, start.to(self.dtype), batches, cast(self.validation), self.phi

    def normal_equations(self, phi):
        """A (D, D) with the weight decay, and b (D,)."""
        (x, y), (u, v, w) = self.train, phi
        a = 2 * (u * w) ** 2 * x.T @ x / ROWS + self.sgd.weight_decay * torch.eye(FEATURES)
        return a, (2 * u**2 * v * w * x.T @ y / ROWS)[:, 0]

    def after(self, steps, phi):
        """θ (D,) after so many steps of gradient descent."""
        a, b = self.normal_equations(phi)
        keep = torch.eye(FEATURES).double() - self.sgd.lr * a
        fixed = torch.linalg.solve(a, b)
        return fixed + torch.linalg.matrix_power(keep, steps) @ (self.start[0] - fixed)

    def optimum(self, phi):
        """θ (D,) after endlessly many."""
        return torch.linalg.solve(*self.normal_equations(phi))

    def outcome(self, theta):
        """T at θ (D,)."""
        x, y = self.validation
        return (y[:, 0] - x @ theta).square().mean()

    def slopes(self, reached):
        """dT/dφ (P, 3), where reached(φ) is θ."""
        found = []
        for row in self.phi[: len(PHI), :3]:
            leaf = row.clone().requires_grad_()
            found.append(torch.autograd.grad(self.outcome(reached(leaf)), leaf)[0])
        return torch.stack(found)


def relative_error(found, expected):
    """(P,) of each row as a whole."""
    return (found - expected).norm(dim=1) / expected.norm(dim=1)
