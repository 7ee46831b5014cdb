"""What a problem was when a run began: digests of its data and models, wherever they lie.

A run that goes on with other rows, or is evaluated on other weights, would compare what does not
compare; worse, divided anew, rows that were searched by would become test questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet, UnlearningData

SAMPLED = 256
"""Numbers of each tensor of a model: whatever changes its weights changes some of them."""

Digests = Mapping[str, str]
"""By what a user calls the thing."""


def of_data(data: UnlearningData) -> dict[str, str]:
    """A digest of each set, of all that a row says and of the rows' order."""
    sets: dict[str, DataSet[Any] | None] = {
        "forget": data.forget, "retain": data.retain, "holdout": data.holdout, **data.probes,
        **data.choices,
    }  # fmt: skip
    return {
        f"the set '{name}'": _digest(repr([replace(row, row=0) for row in rows]).encode())
        for name, rows in sets.items()
        if rows is not None
    }


def of_model(model: nn.Module) -> str:
    """A digest of a model's weights, the same on any device and under any path."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLED)].cpu().to(torch.float64)
        found.update(f"{name} {tuple(weight.shape)}".encode() + some.numpy().tobytes())
    return found.hexdigest()[:16]


def check(run: str, before: Digests, now: Digests) -> None:
    """Raises: UserError where something is no longer what it was when a run began.

    What is not in `now` is not compared.
    """
    changed = [name for name in before if now.get(name, before[name]) != before[name]]
    if changed:
        raise UserError(
            f"'{run}' was begun when {', '.join(changed)} had other content: put that back as it "
            "was, or begin anew with another --out"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
