"""EvoMAL's evaluation of candidates one at a time in ordinary torch, to measure evoloss against.

Local search by autograd double backward, the rejection protocol and the fitness training of
Raymond et al. 2023 (arXiv 2403.00865), in the published order.
"""

from __future__ import annotations

import ast
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

Split = tuple[Tensor, Tensor]  # inputs (N, ...), targets (N, C), one-hot for classes
Loss = Callable[[Tensor, Tensor], Tensor]  # (prediction, target), both (B, C), to a scalar
Metric = Callable[[Tensor, Tensor], Tensor]  # (prediction, target) to an error, lower is better
Output = Callable[[Tensor], Tensor]  # raw network output to prediction, both (B, C)
Factory = Callable[[], nn.Module]
Node = Callable[[Tensor, Tensor, Any], Tensor]  # (prediction, target, weights) to (B, C)


def absolute(a: Tensor) -> Tensor:
    """|a|. The double backward of torch.abs makes zero tensors that torch adds in slow Python."""
    return a * a.detach().sign()


def guarded(a: Tensor) -> Tensor:
    return torch.clamp(absolute(a), min=1e-7)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "aq": lambda a, b: a * torch.rsqrt(1.0 + b * b),
    "abs": absolute,
    "log": lambda a: torch.log(guarded(a)),
    "sqrt": lambda a: torch.sqrt(guarded(a)),
    "sign": torch.sign, "square": torch.square, "tanh": torch.tanh,
    "min": torch.minimum, "max": torch.maximum,
}  # fmt: skip
SYMBOLS: dict[type[ast.AST], Callable[..., Tensor]] = {
    ast.Add: torch.add, ast.Sub: torch.sub, ast.Mult: torch.mul, ast.Div: torch.div,
    ast.USub: torch.neg,
}  # fmt: skip

OUTPUTS: dict[str, Output] = {
    "identity": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "softmax": lambda raw: torch.softmax(raw, dim=-1),
}
USUAL_LOSSES: dict[str, Loss] = {
    "identity": lambda raw, y: (raw - y).square().sum() / len(y),
    "sigmoid": lambda raw, y: (
        functional.binary_cross_entropy_with_logits(raw, y, reduction="sum") / len(y)
    ),
    "softmax": functional.cross_entropy,
}
"""Per output transform, the task loss of raw network outputs (B, C) and targets."""


class TreeLoss(nn.Module):
    """A loss of (prediction, target) as a tree of torch operations with one weight on every edge.

    The weights `phi` are numbered in pre-order, the edges of a node's operands each followed by
    the edges below; the root has none. Summed over the outputs, averaged over the batch.
    """

    def __init__(self, text: str, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._edges = 0
        self._device = device
        self._tree = self._build(ast.parse(text.strip(), mode="eval").body)
        self.phi = nn.Parameter(torch.ones(self._edges, device=device))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self._tree(prediction, target, self.phi.unbind()).sum() / len(target)

    def fixed(self) -> Loss:
        """The same loss with its present weights as plain numbers: no graph is kept for them."""
        tree, weights = self._tree, self.phi.tolist()
        return lambda prediction, target: tree(prediction, target, weights).sum() / len(target)

    def _build(self, node: ast.expr) -> Node:
        match node:
            case ast.Name("y"):
                return lambda f, y, w: y
            case ast.Name("f"):
                return lambda f, y, w: f
            case ast.Constant(int() | float() as number):
                return _constant(number, self._device)
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
                return _constant(-number, self._device)
            case ast.UnaryOp(symbol, operand) if type(symbol) in SYMBOLS:
                return self._call(SYMBOLS[type(symbol)], [operand])
            case ast.BinOp(left, symbol, right) if type(symbol) in SYMBOLS:
                return self._call(SYMBOLS[type(symbol)], [left, right])
            case ast.Call(ast.Name(name), operands, []) if name in FUNCTIONS:
                return self._call(FUNCTIONS[name], operands)
        raise ValueError(f"'{ast.unparse(node)}' is not an expression of y and f")

    def _call(self, function: Callable[..., Tensor], operands: list[ast.expr]) -> Node:
        edges, below = [], []
        for operand in operands:
            edges.append(self._edges)
            self._edges += 1
            below.append(self._build(operand))
        if len(operands) == 1:
            (i,), (child,) = edges, below
            return lambda f, y, w: function(child(f, y, w) * w[i])
        (i, j), (left, right) = edges, below
        return lambda f, y, w: function(left(f, y, w) * w[i], right(f, y, w) * w[j])


def _constant(number: float, device: torch.device | str) -> Node:
    value = torch.tensor(float(number), device=device)
    return lambda f, y, w: value


class BaseNetwork:
    """A network whose weights can be drawn afresh in two operations, whatever its layers.

    All parameters are views of one flat vector. torch draws linear, convolutional and recurrent
    layers uniformly from ±1/√fan_in (recurrent: ±1/√hidden), so one uniform draw times a vector of
    bounds initialises them as torch does; any other layer resets itself.
    """

    def __init__(self, make_network: Factory, generator: torch.Generator) -> None:
        self.module = make_network()
        self.named = dict(self.module.named_parameters())
        self.parameters = list(self.named.values())
        self._generator = generator
        self._flat = torch.cat([each.detach().flatten() for each in self.parameters])
        bounds, self._others = self._bounds()
        self._scale = torch.cat([
            torch.full((each.numel(),), bounds[each], device=each.device)
            for each in self.parameters
        ])  # fmt: skip
        views = self._flat.split([each.numel() for each in self.parameters])
        for each, view in zip(self.parameters, views, strict=True):
            each.data = view.view_as(each)

    def fresh(self) -> None:
        """Gives the network new initial weights."""
        self._flat.uniform_(-1.0, 1.0, generator=self._generator).mul_(self._scale)
        for layer in self._others:
            layer.reset_parameters()

    def _bounds(self) -> tuple[dict[nn.Parameter, float], list[Any]]:
        """Every parameter's bound, and the layers that draw their own weights."""
        bounds, others = {}, []
        for layer in self.module.modules():
            own = list(layer.parameters(recurse=False))
            bound = 0.0
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1.0 / math.sqrt(layer.weight[0].numel())
            elif isinstance(layer, nn.RNNBase):
                bound = 1.0 / math.sqrt(layer.hidden_size)
            elif own:
                others.append(layer)
            bounds.update(dict.fromkeys(own, bound))
        return bounds, others


def minibatches(data: Split, batch: int, steps: int, generator: torch.Generator) -> Iterator[Split]:
    """`steps` minibatches, reshuffled after every pass; the whole split if it is no larger."""
    x, y = data
    if batch >= len(x):
        yield from itertools.repeat(data, steps)
        return
    passes = math.ceil(steps * batch / len(x))
    order = torch.cat([
        torch.randperm(len(x), generator=generator, device=x.device) for _ in range(passes)
    ])  # fmt: skip
    for index in order[: steps * batch].view(steps, batch):
        yield x.index_select(0, index), y.index_select(0, index)


def local_search(
    loss: TreeLoss, make_network: Factory, train: Split, validation: Split, output: Output,
    usual_loss: Loss, *, steps: int = 250, lr: float = 0.01, batch: int = 128,
    meta_lr: float = 1e-3, generator: torch.Generator,
) -> None:  # fmt: skip
    """Tunes phi through one SGD step of fresh base networks; usual_loss takes raw outputs."""
    network = BaseNetwork(make_network, generator)
    optimizer = torch.optim.Adam([loss.phi], lr=meta_lr, fused=True)
    inner = minibatches(train, batch, steps, generator)
    outer = minibatches(validation, batch, steps, generator)
    for (x, y), (validation_x, validation_y) in zip(inner, outer, strict=True):
        network.fresh()
        meta_loss = loss(output(network.module(x)), y)
        gradients = torch.autograd.grad(meta_loss, network.parameters, create_graph=True)
        stepped = {
            name: theta.sub(gradient, alpha=lr)
            for (name, theta), gradient in zip(network.named.items(), gradients, strict=True)
        }
        raw = functional_call(network.module, stepped, (validation_x,))
        # Only phi is asked for, so no second derivatives of the network are computed.
        task_loss = usual_loss(raw, validation_y)
        (loss.phi.grad,) = torch.autograd.grad(task_loss, loss.phi, allow_unused=True)
        optimizer.step()


def rejects(
    loss: TreeLoss, make_network: Factory, train: Split, output: Output, metric: Metric, *,
    steps: int = 1000, lr: float = 0.01, instances: int = 100, generator: torch.Generator,
) -> bool:  # fmt: skip
    """Whether moving predictions down the loss does not lower their error (NaN has not fallen)."""
    x, y = train
    chosen = torch.randperm(len(x), generator=generator, device=x.device)[:instances]
    x, y = x[chosen], y[chosen]
    network = BaseNetwork(make_network, generator)
    network.fresh()
    with torch.no_grad():
        raw = network.module(x)
        before = metric(output(raw), y)
    raw.requires_grad_()
    fixed = loss.fixed()
    optimizer = torch.optim.Adam([raw], lr=lr, fused=True)
    for _ in range(steps):
        (raw.grad,) = torch.autograd.grad(fixed(output(raw), y), raw)
        optimizer.step()
    return not bool(metric(output(raw.detach()), y) < before)


def fitness(
    loss: TreeLoss, make_network: Factory, train: Split, validation: Split, output: Output,
    metric: Metric, *, steps: int = 500, lr: float = 0.01, batch: int = 128,
    momentum: float = 0.9, nesterov: bool = True, weight_decay: float = 5e-4,
    generator: torch.Generator,
) -> float:  # fmt: skip
    """The validation error of a fresh base network trained with the loss."""
    network = BaseNetwork(make_network, generator)
    network.fresh()
    fixed = loss.fixed()
    optimizer = torch.optim.SGD(
        network.parameters, lr=lr, momentum=momentum, nesterov=nesterov,
        weight_decay=weight_decay, fused=True,
    )  # fmt: skip
    for x, y in minibatches(train, batch, steps, generator):
        optimizer.zero_grad()
        fixed(output(network.module(x)), y).backward()
        optimizer.step()
    with torch.no_grad():
        return float(metric(output(network.module(validation[0])), validation[1]))


@dataclass(frozen=True)
class Settings:
    """A task as tensors and numbers; output is a key of `OUTPUTS`."""

    train: Split
    validation: Split
    make_network: Factory
    output: str
    metric: Metric
    lr: float = 0.01
    batch: int = 128
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    local_steps: int = 250
    fitness_steps: int = 500
    rejection_steps: int = 1000


def settings_of(task: Any, device: torch.device | str = "cpu") -> Settings:
    """The settings of an evoloss task that has one data set; data and networks on a device."""
    episode, training = task.episodes.search(0), task.training
    train, validation = (
        (each.x.to(device), each.y.to(device)) for each in (episode.train, episode.held_out)
    )
    return Settings(
        train, validation, lambda: task.network().to(device), task.output,
        metric=lambda prediction, target: task.metric.errors(prediction[None], target)[0],
        lr=training.lr, batch=training.batch, momentum=training.momentum,
        nesterov=training.nesterov, weight_decay=training.weight_decay,
        fitness_steps=training.steps,
    )  # fmt: skip


def evaluate_candidate(text: str, task: Settings, seed: int = 0) -> dict[str, Any]:
    """Local search, rejection, fitness. Returns seconds per stage, error (or None), rejected."""
    device = task.train[0].device
    loss, network, output = TreeLoss(text, device), task.make_network, OUTPUTS[task.output]
    generator = torch.Generator(device if device.type == "cuda" else "cpu").manual_seed(seed)
    both: dict[str, Any] = {"lr": task.lr, "generator": generator}
    started = _now(device)
    local_search(
        loss, network, task.train, task.validation, output, USUAL_LOSSES[task.output],
        steps=task.local_steps, batch=task.batch, **both,
    )  # fmt: skip
    tuned = _now(device)
    trial = {"steps": task.rejection_steps, **both}
    rejected = rejects(loss, network, task.train, output, task.metric, **trial)
    tested = _now(device)
    seconds = {"local search": tuned - started, "rejection": tested - tuned}
    error = None
    if not rejected:
        error = fitness(
            loss, network, task.train, task.validation, output, task.metric,
            steps=task.fitness_steps, batch=task.batch, momentum=task.momentum,
            nesterov=task.nesterov, weight_decay=task.weight_decay, **both,
        )  # fmt: skip
        seconds["fitness"] = _now(device) - tested
    return {"seconds": seconds, "error": error, "rejected": rejected}


def _now(device: torch.device) -> float:
    """Seconds, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
