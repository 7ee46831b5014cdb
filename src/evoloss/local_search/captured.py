"""The one-step hyper-gradient as a recorded step, for GPUs: see `engine/captured`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import Tensor

from evoloss.engine.captured import Captured, Graphs, Tensors, WalkedLosses, padded, tensors_of
from evoloss.engine.loss_population import LossPopulation
from evoloss.local_search.inner import Batch, Inner
from evoloss.local_search.unrolled import one_step_hypergradient


class CapturedHyperGradient:
    """The `HyperGradient` through one step, of one population of losses."""

    def __init__(self, graphs: Graphs, inner: Inner, phi: Tensor) -> None:
        self.graphs = graphs
        self.inner = inner
        # The first is φ, which every step brings anew.
        self.learned = tensors_of(inner.losses, phi)[1:]
        self.usual = tensors_of(inner.usual, inner.usual_phi)
        self._begun: Captured | None = None

    def __call__(
        self,
        inner: Inner,
        theta: Tensor,
        batches: Sequence[Batch],
        validation: Batch,
        phi: Tensor,
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """As `one_step_hypergradient`, of the inner problem that it was made for."""
        changing = (padded(phi), theta, *batches[0], *validation)
        if self._begun is None:
            what = "tune", inner.output, inner.sgd
            staying = (*self.learned, *self.usual)
            self._begun = self.graphs.begun(what, self._step, changing, staying)
        return self._begun(changing)[0][:, : phi.shape[1]]

    def _step(self, changing: Tensors, staying: Tensors) -> tuple[Tensor, ...]:
        phi, theta, x, y, seen, wanted = changing
        parts = len(self.learned)
        # One step asks no more of losses than these can do.
        losses = cast(LossPopulation, WalkedLosses.of((phi, *staying[:parts])))
        usual = cast(LossPopulation, WalkedLosses.of(staying[parts:]))
        own = self.inner
        inner = Inner(own.stack, losses, usual, own.output, own.sgd, own.device)
        return (one_step_hypergradient(inner, theta, (x, y), (seen, wanted), phi),)
