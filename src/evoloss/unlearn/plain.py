"""What a driver and its workers tell each other about unlearning, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from evoloss.execution.executor import Plain
from evoloss.execution.tensors import tensor
from evoloss.lang.export.json_form import from_json, to_json
from evoloss.lang.expr import Expr
from evoloss.unlearn.objective import signature_of
from evoloss.unlearn.recipes import Measured
from evoloss.unlearn.trainer import Progress


@dataclass(frozen=True)
class Entry:
    """One training: what is minimised, for how many steps, from which learning rate on.

    loss: an expression, or None for the rival method of the name, with its constants.
    """

    loss: Expr | None
    steps: int
    lr: float
    rival: str = ""
    constants: Mapping[str, float] = field(default_factory=dict)

    def to_plain(self, retain: bool) -> Plain:
        """retain: whether losses are of what is to be kept, too."""
        return {
            "loss": None if self.loss is None else written(self.loss, retain),
            "steps": self.steps,
            "lr": self.lr,
            "rival": self.rival,
            "constants": dict(self.constants),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Entry:
        """What `to_plain` wrote."""
        loss = plain["loss"]
        return cls(**{**plain, "loss": None if loss is None else from_json(loss)})


def written(loss: Expr, retain: bool) -> str:
    """An unlearning loss as JSON, without losing a bit."""
    return to_json(loss, signature_of(loss, retain))


def plain_progress(progress: Progress) -> Plain:
    """Where a training stands, with arrays in place of tensors."""
    return {
        "weights": plain_weights(progress.weights),
        "moments": [[m.numpy(), v.numpy()] for m, v in progress.moments],
        "step": progress.step,
        "fine": progress.fine,
        "moved": progress.moved,
    }


def progress_of(plain: Mapping[str, Any]) -> Progress:
    """What `plain_progress` wrote."""
    moments = tuple((tensor(m), tensor(v)) for m, v in plain["moments"])
    rest = {name: plain[name] for name in ("step", "fine", "moved")}
    return Progress(weights_of(plain["weights"]), moments, **rest)


def plain_weights(weights: Mapping[str, Tensor]) -> Plain:
    """The weights of an adapter as arrays."""
    return {name: each.numpy() for name, each in weights.items()}


def weights_of(plain: Mapping[str, Any]) -> dict[str, Tensor]:
    """What `plain_weights` wrote."""
    return {name: tensor(each) for name, each in plain.items()}


def plain_measured(measured: Measured | None) -> Plain:
    """The values of one model's metrics, with what other models are compared by."""
    return None if measured is None else asdict(measured)


def measured_of(plain: Mapping[str, Any] | None) -> Measured | None:
    """What `plain_measured` wrote."""
    if plain is None:
        return None
    rows: dict[str, Any] = {name: tuple(each) for name, each in plain.items() if name != "values"}
    return Measured(dict(plain["values"]), **rows)
