"""P copies of one base network, their parameters the rows of one matrix θ (P, D).

All copies see the same minibatch. A stack offers what training and one-step unrolled
differentiation need and no more: the output, a vector-Jacobian product, a Jacobian-vector product.
θ may have one row where all copies still share their weights: then the forward pass is done once.

Batch norms take the statistics of the batch at hand in training, and in evaluation those that
`statistics` finds: see `engine/batch_norm.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from evoloss.engine.batch_norm import Statistics, gathered, standardising_by, without_memory
from evoloss.engine.device import seeded

Pullback = Callable[[Tensor], Tensor]


class Stack(Protocol):
    """What every way of stacking offers. D: parameters of one network."""

    @property
    def repeatable(self) -> bool:
        """Whether passes draw no random numbers."""

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """(P, B, C) raw outputs of θ (P, D) for x (B, …); differentiable by autograd."""

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        """Raw outputs, and G (P, B, C) ↦ Jᵀ G (P, D). θ may be (1, D); G still has P."""

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        """J · along: (P, B, C) for directions (P, D) at θ (P, D) or (1, D)."""

    def statistics(self, theta: Tensor, batches: Sequence[Tensor]) -> Statistics | None:
        """What the batch norms of each copy standardise by in evaluation: averages over batches.

        None if the network has none.
        """

    def predict(self, theta: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """`forward` in evaluation mode (no dropout), without a graph.

        statistics: of the same θ; without them, batch norms standardise by x.
        """

    def reseed(self, noise: int) -> None:
        """Sets the seed of the network's own randomness for the passes that follow."""


class Layout:
    """Where each parameter of a module lies in a row of θ."""

    def __init__(self, module: nn.Module) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.shapes = [tuple(p.shape) for _, p in named]
        self.sizes = [p.numel() for _, p in named]
        self.total = sum(self.sizes)

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """(…, D) as named views (…, *shape)."""
        parts = theta.split(self.sizes, dim=-1)
        return {
            name: part.unflatten(-1, shape) if shape else part.squeeze(-1)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def join(self, named: dict[str, Tensor], leading: int) -> Tensor:
        """The inverse of `split`; `leading` dimensions come before each shape."""
        parts = (named[name] for name in self.names)
        return torch.cat([part.reshape(*part.shape[:leading], -1) for part in parts], dim=-1)


def parameters(module: nn.Module) -> Tensor:
    """(D,) the module's trainable parameters, in `Layout`'s order."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


class _Functional:
    """A module as a function of one row of θ.

    noise: seed of the module's own randomness (dropout), so that all copies, and the two
    derivative passes of one step, see the same masks; None for a module without any.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.train()
        self.norms = without_memory(module)
        self.layout = Layout(module)
        self.fixed = {
            name: p.detach() for name, p in module.named_parameters() if not p.requires_grad
        }
        self.stochastic = any(map(_is_stochastic, module.modules()))
        self.noise = 0

    def __call__(self, row: Tensor, x: Tensor) -> Tensor:
        named = {**self.layout.split(row), **self.fixed}
        found: Tensor = functional_call(self.module, named, (x,))
        return found

    def seeded(self) -> AbstractContextManager[None]:
        """Within it, the module's random numbers start from `noise`."""
        device = next(self.module.parameters()).device
        return seeded(self.noise, device) if self.stochastic else nullcontext()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it, the module is in evaluation mode and no graph is made."""
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train()


_STOCHASTIC = (nn.modules.dropout._DropoutNd, nn.RReLU)
_STOCHASTIC_NAMES = ("DropPath", "StochasticDepth")
"""Layers of timm and torchvision, known by name since these need not be installed."""


def _is_stochastic(part: nn.Module) -> bool:
    return isinstance(part, _STOCHASTIC) or type(part).__name__ in _STOCHASTIC_NAMES


class _ModuleStack:
    """What the stacks over arbitrary modules share."""

    def __init__(self, module: nn.Module) -> None:
        self.function = _Functional(module)

    @property
    def repeatable(self) -> bool:
        return not self.function.stochastic

    def reseed(self, noise: int) -> None:
        self.function.noise = noise

    def statistics(self, theta: Tensor, batches: Sequence[Tensor]) -> Statistics | None:
        function = self.function
        if not (function.norms and batches):
            return None
        with function.evaluating():
            return [gathered(function.norms, partial(function, row), batches) for row in theta]

    def predict(self, theta: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        outputs = []
        with self.function.evaluating():
            for row, moments in zip(theta, statistics or [{}] * len(theta), strict=True):
                with standardising_by(moments):
                    outputs.append(self.function(row, x))
        return torch.stack(outputs)


class VmapStack(_ModuleStack):
    """Any module, `chunk` copies at a time by `torch.vmap`."""

    def __init__(self, module: nn.Module, chunk: int | None = None) -> None:
        super().__init__(module)
        self.chunk = chunk

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._map(lambda row: self.function(row, x), theta)

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        if len(theta) == 1:
            with self.function.seeded():
                raw, back, *_ = vjp(lambda row: self.function(row, x), theta[0])
            return raw[None], lambda gradient: self._map(lambda g: back(g)[0], gradient)
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            outputs = self.forward(leaf, x)
        return outputs.detach(), lambda gradient: torch.autograd.grad(outputs, leaf, gradient)[0]

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        def one(row: Tensor, direction: Tensor) -> Tensor:
            found: Tensor = jvp(lambda r: self.function(r, x), (row,), (direction,))[1]
            return found

        if len(theta) == 1:
            return self._map(lambda direction: one(theta[0], direction), along)
        return self._map(one, theta, along)

    def _map(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        with self.function.seeded():
            mapped: Tensor = vmap(function, randomness="same", chunk_size=self.chunk)(*rows)
        return mapped


class LoopStack(_ModuleStack):
    """Any module, one copy after the other: best where one copy already fills the machine."""

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        return torch.stack([self._one(row, x) for row in theta])

    def pull(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        with torch.enable_grad():
            leaves = [row.detach().requires_grad_() for row in theta]
            outputs = [self._one(leaf, x) for leaf in leaves]
        shared = len(leaves) == 1

        def pullback(gradient: Tensor) -> Tensor:
            return torch.stack([one(p, g) for p, g in enumerate(gradient)])

        def one(p: int, g: Tensor) -> Tensor:
            at = 0 if shared else p
            found: Tensor = torch.autograd.grad(outputs[at], leaves[at], g, retain_graph=shared)[0]
            return found

        return torch.stack([output.detach() for output in outputs]), pullback

    def push(self, theta: Tensor, x: Tensor, along: Tensor) -> Tensor:
        pushed = []
        for p, direction in enumerate(along):
            row = theta[p if len(theta) > 1 else 0]
            pushed.append(jvp(lambda r: self._one(r, x), (row,), (direction,))[1])
        return torch.stack(pushed)

    def _one(self, row: Tensor, x: Tensor) -> Tensor:
        with self.function.seeded():
            return self.function(row, x)
