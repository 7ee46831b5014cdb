"""Unlearning losses as functions of their constants, c · e^ρ each, with ρ to be tuned.

A constant keeps its sign, and the same ρ means the same change to a weight of 0.1 and to one of 20.
What has no slope or no meaning beside its value stays as it is: see `free`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from evoloss.lang.evaluate import evaluate, torch_operator
from evoloss.lang.expr import Call, Const, Expr, Input, walk
from evoloss.lang.ops import NONE, OPERATORS
from evoloss.lang.screening import directions, fault
from evoloss.lang.types import MASKS, Signature
from evoloss.lang.weights import with_constants
from evoloss.unlearn.objective import Batch, LossObjective

_FIXED = "fixed "
_NUDGES = (1.1, 1.0 / 1.1)


@dataclass(frozen=True)
class Tunable:
    """A loss whose constants are an argument.

    constants: its own, in pre-order. free: which of them are tuned.
    """

    constants: tuple[float, ...]
    free: tuple[bool, ...]
    by_token: bool
    body: Expr

    @classmethod
    def of(cls, loss: Expr, signature: Signature) -> Tunable:
        """A loss with the constants that it has."""
        constants = tuple(node.value for node in walk(loss) if isinstance(node, Const))
        by_token = not MASKS.isdisjoint(signature.inputs)
        return cls(constants, free(loss, signature), by_token, _without_detach(loss))

    def value(self, batch: Batch, constants: Tensor) -> Tensor:
        """The loss on log-probabilities; autograd passes through to both, twice too.

        constants: (N,), with as many numbers as there are constants, or more, of the type and on
            the device of the log-probabilities.
        """
        inputs: dict[str, Tensor] = {}
        for side, rows in batch.items():
            still = replace(rows, log_probs=rows.log_probs.detach())
            live, fixed = (
                each.tokens(side) if self.by_token else each.means(side) for each in (rows, still)
            )
            inputs |= live | {_FIXED + name: each for name, each in fixed.items()}
        in_order = iter(constants)
        # Operands are evaluated left to right, so constants are asked for in pre-order.
        found: Tensor = evaluate(self.body, inputs, torch_operator, lambda _: next(in_order))
        return found


def free(loss: Expr, signature: Signature) -> tuple[bool, ...]:
    """Which constants can be tuned, in pre-order.

    Not 0, which has no scale; not what an operator has no slope in (counts, thresholds) and not the
    level of a quantile; and not one with which the loss fails its cheap tests, or turns round on
    what is to be forgotten, as soon as it is nudged: the exponent 2 of what may be negative, or the
    1 in powers of 1 − p.
    """
    constants = [node.value for node in walk(loss) if isinstance(node, Const)]
    reached = list(_reached(loss))
    found: list[int] = []
    if fault(loss, signature) is not None:
        return (False,) * len(constants)
    usual = directions(loss, signature)

    def all_bear(nudge: float, chosen: Sequence[int]) -> bool:
        moved = [c * nudge if at in chosen else c for at, c in enumerate(constants)]
        nudged = with_constants(loss, moved)
        return fault(nudged, signature) is None and directions(nudged, signature) == usual

    # Backwards, for an exponent has the first claim, and what makes its base negative is held.
    for at in reversed(range(len(constants))):
        able = reached[at] and constants[at] != 0.0
        if able and all(all_bear(nudge, [at, *found]) for nudge in _NUDGES):
            found.append(at)
    return tuple(at in found for at in range(len(constants)))


def _reached(expr: Expr, yes: bool = True) -> Iterator[bool]:
    """For each constant, whether the loss has a slope in it; one in `detach` is no less in use."""
    match expr:
        case Const():
            yield yes
        case Call("detach", (operand,)):
            yield from _reached(operand, yes)
        case Call("quantile", (vector, level)):
            yield from _reached(vector, yes)
            yield from _reached(level, False)
        case Call(op, args):
            for slope, operand in zip(OPERATORS[op].first, args, strict=True):
                yield from _reached(operand, yes and slope != NONE)


def _without_detach(expr: Expr, fixed: bool = False) -> Expr:
    """The same loss with fixed inputs in place of `detach`, which would stop φ's gradient too."""
    match expr:
        case Input(name) if fixed:
            return Input(_FIXED + name)
        case Call("detach", (operand,)):
            return _without_detach(operand, True)
        case Call(op, args):
            return Call(op, tuple(_without_detach(each, fixed) for each in args))
    return expr


@dataclass(frozen=True)
class Tunables:
    """The objective of some losses, each with constants of its own.

    batches: what minibatches there are. rho: (K, N) float64, 0 where there is nothing to tune.
    """

    losses: Sequence[Tunable]
    batches: LossObjective
    rho: Tensor

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def constants(self) -> Tensor:
        """(K, N) c · e^ρ, padded with 0."""
        return _padded([each.constants for each in self.losses]) * self.rho.exp()

    def _placed(self, like: Tensor) -> Tensor:
        """The constants where the log-probabilities are; those that stay are moved there once."""
        if self.rho.requires_grad:
            return self.constants.to(like)
        kept = self._kept.get((like.dtype, like.device))
        if kept is None:
            kept = self._kept[like.dtype, like.device] = self.constants.to(like)
        return kept

    @cached_property
    def _kept(self) -> dict[tuple[torch.dtype, torch.device], Tensor]:
        return {}

    @property
    def free(self) -> Tensor:
        """(K, N) where there is something to tune."""
        return _padded([each.free for each in self.losses]) > 0

    def values(self, model: nn.Module, step: int, running: Sequence[int]) -> Tensor:
        """(len(running),) losses, each of its own adapter's log-probabilities."""
        return self.of(self.batches.inputs(model, step, len(running)), running)

    def of(self, batches: Sequence[Batch], running: Sequence[int]) -> Tensor:
        """(len(running),) losses on the log-probabilities of each."""
        constants = self._placed(batches[0]["forget"].log_probs)
        return torch.stack([
            self.losses[copy].value(batch, constants[copy])
            for copy, batch in zip(running, batches, strict=True)
        ])  # fmt: skip


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """(K, N) float64, rows of different lengths filled with 0."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)
