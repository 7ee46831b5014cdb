"""Recorded steps equal those that are not; on the CPU a tape stands in for the CUDA graph."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from evoloss.engine import training, triton_form
from evoloss.engine.captured import Graphs
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, parameters
from evoloss.engine.stacking import make_stack
from evoloss.engine.training import Batches, Trained, train, train_each
from evoloss.lang.parse import parse
from evoloss.local_search.captured import CapturedHyperGradient
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import one_step_hypergradient

pytest.importorskip("triton", reason="triton is not installed")
if torch.cuda.is_available():
    pytest.skip("the tape records what is done on the CPU", allow_module_level=True)


@pytest.fixture(autouse=True)
def quiet():
    """The interpreter computes in NumPy, which warns of what is not a number."""
    with np.errstate(all="ignore"):
        yield


SGD_ = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


class Tape(TorchDispatchMode):
    """Records each operation with the tensors it was done on, and none of the Python around it."""

    running = None

    def __init__(self):
        super().__init__()
        self.done = []

    @contextlib.contextmanager
    def record(self):
        Tape.running = self
        with self:
            yield
        Tape.running = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.done.append((function, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, found in self.done:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture(autouse=True)
def kernels_on_tape(monkeypatch):
    """Triton's interpreter does no torch operations, so that its kernels are recorded here."""
    kernel = triton_form.launch

    def launch(*arguments):
        with _disable_current_modes():
            kernel(*arguments)
        if Tape.running is not None:
            Tape.running.done.append((kernel, arguments, {}, None))

    monkeypatch.setattr(triton_form, "launch", launch)


@pytest.fixture
def graphs():
    """Where steps are kept; `made` are the recordings."""
    made = []

    def recorder():
        made.append(Tape())
        return made[-1]

    graphs = Graphs(recorder)
    graphs.made = made
    return graphs


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def stack(kind):
    if kind == "dense":
        return make_stack(network(), {"train": "dense"})
    return LoopStack(network())


def population(texts, weights):
    return LossPopulation([parse(each) for each in texts], weights, "triton")


# Programs of other lengths and other φ, that need the same room.
LOSSES = (
    ("square(y - f)", "1.5 * abs(2.0 * y - f) * tanh(f)"),
    ("tanh(abs(y - 3.0 * f)) + 1.5 * f", "abs(y - f)"),
)


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = draws(0, 4, 2), draws(1, 4, 2).softmax(-1)
THETA = 0.5 * draws(2, 1, parameters(network()).numel())


ROWS = np.array([[[0, 1], [2, 3], [1, 2]], [[3, 0], [2, 1], [0, 1]]])


@pytest.mark.parametrize("kind", ["dense", "loop"])
@pytest.mark.parametrize("trainings", [1, 2])
@pytest.mark.parametrize("gathered", [1, 2**20])
def test_recorded_trainings_serve_other_losses_and_equal_those_that_are_not(
    graphs, kind, trainings, gathered, monkeypatch
):
    monkeypatch.setattr(training, "_GATHERED_BYTES", gathered)
    batches = [Batches(X + n, Y, ROWS[n]) for n in range(trainings)]
    for texts in LOSSES:
        losses = population(texts, "none")
        starts = [Trained.start(THETA + n, 2) for n in range(trainings)]
        rest = "softmax", SGD_
        given = stack(kind), losses, losses.initial_phi()
        found = train_each(starts, *given, batches, *rest, graphs)
        for start, own, each in zip(starts, batches, found, strict=True):
            plain = train(start, *given, own, *rest)
            assert torch.equal(each.theta, plain.theta)
            assert torch.equal(each.velocity, plain.velocity)
            assert each.steps == plain.steps == 3
            assert not torch.equal(each.theta[0], each.theta[1])
    assert len(graphs.made) == 1


def test_trainings_of_unlike_minibatches_are_not_recorded(graphs):
    losses = population(LOSSES[0], "none")
    batches = [Batches(X, Y, np.array([[0, 1]])), Batches(X, Y, np.array([[0, 1, 2]]))]
    starts = [Trained.start(THETA, 2)] * 2
    given = stack("dense"), losses, losses.initial_phi()
    found = train_each(starts, *given, batches, "softmax", SGD_, graphs)
    assert graphs.made == []
    assert torch.equal(found[1].theta, train(starts[1], *given, batches[1], "softmax", SGD_).theta)


def test_a_recorded_hyper_gradient_serves_other_losses_and_equals_one_that_is_not(graphs):
    for texts in LOSSES:
        losses, usual = population(texts, "edges"), population(["square(y - f)"] * 2, "none")
        inner = Inner(stack("dense"), losses, usual, "softmax", SGD_)
        phi = losses.initial_phi()
        recorded = CapturedHyperGradient(graphs, inner, phi)
        for step in range(2):
            given = THETA + step, [(X[:2] + step, Y[:2])], (X[2:], Y[2:]), phi + 0.1 * step
            found = recorded(inner, *given)
            theta, [batch], validation, weights = given
            plain = one_step_hypergradient(inner, theta, batch, validation, weights)
            # φ has room for more, which is added up in another order.
            torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-7)
            assert found.abs().sum() > 0
    assert len(graphs.made) == 1


def test_another_optimiser_or_number_of_losses_is_recorded_anew(graphs):
    batches = [Batches(X, Y, np.array([[0, 1]]))]
    for copies, sgd in ((2, SGD_), (2, SGD(0.1)), (1, SGD_)):
        some = population(LOSSES[0][:copies], "none")
        start = Trained.start(THETA, copies)
        train_each(
            [start], stack("dense"), some, some.initial_phi(), batches, "softmax", sgd, graphs
        )
    assert len(graphs.made) == 3


def test_a_network_with_dropout_is_not_recorded(graphs):
    losses = population(LOSSES[0], "none")
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    start = Trained.start(parameters(module)[None], 2)
    batches = [Batches(X, Y, np.array([[0, 1]]))]
    phi = losses.initial_phi()
    train_each([start], LoopStack(module), losses, phi, batches, "softmax", SGD_, graphs)
    assert graphs.made == []
