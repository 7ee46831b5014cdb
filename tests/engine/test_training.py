"""Base training against one network at a time in plain torch; minibatches, fresh weights, cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import evoloss
from evoloss.engine import compiled
from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import LoopStack, VmapStack, parameters
from evoloss.engine.training import (
    Batches,
    InitialWeights,
    Trained,
    fresh_weights,
    minibatches,
    predict,
    train,
)
from evoloss.lang.parse import parse
from loss_oracle import batch_loss, weight_count

LOSSES = [
    parse(text)
    for text in ("square(y - f)", "abs(y - f) + 0.1 * tanh(f * y)", "softplus(f - y) - y * f")
]
TRANSFORMS = {"identity": lambda raw: raw, "sigmoid": torch.sigmoid, "softmax": nn.Softmax(dim=1)}
STACKS = {
    "dense": lambda module: DenseStack(module, dense_layers(module)),
    "vmap": VmapStack,
    "loop": LoopStack,
}
SGDS = [
    SGD(0.05),
    SGD(0.05, momentum=0.9, weight_decay=0.01),
    SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
]


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def draws(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = draws(0, 40, 4) * 2 - 1, draws(1, 40, 3)


def trained_alone(expr, phi, output, sgd, batches, seed):
    """(D,) the way of one network's parameters, by torch.optim and autograd."""
    torch.manual_seed(seed)
    module = network()
    start = nn.utils.parameters_to_vector(module.parameters()).detach()
    optimiser = torch.optim.SGD(
        module.parameters(), sgd.lr, sgd.momentum, 0, sgd.weight_decay, sgd.nesterov
    )
    for rows in batches:
        optimiser.zero_grad()
        batch_loss(expr, Y[rows], TRANSFORMS[output](module(X[rows])), phi).backward()
        optimiser.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach() - start, module


@pytest.mark.parametrize("way", STACKS)
@pytest.mark.parametrize("output", TRANSFORMS)
@pytest.mark.parametrize("sgd", SGDS, ids=("plain", "momentum", "nesterov"))
def test_a_population_trains_like_separate_networks(way, output, sgd):
    batches = minibatches(len(X), 16, 25, np.random.default_rng(2))
    losses = LossPopulation(LOSSES)
    phi = 0.5 + draws(3, *losses.initial_phi().shape)
    initial = fresh_weights(network, 5)
    stack = STACKS[way](network())
    state = Trained.start(initial, len(LOSSES))
    found = train(state, stack, losses, phi, Batches(X, Y, batches), output, sgd)
    predictions = predict(stack, found.theta, X, output)
    for p, expr in enumerate(LOSSES):
        own = phi[p, : weight_count(expr)]
        way_of_one, module = trained_alone(expr, own, output, sgd, batches, 5)
        torch.testing.assert_close(found.theta[p] - initial[0], way_of_one, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(predictions[p], TRANSFORMS[output](module(X)).detach())
    assert not predictions.requires_grad


def test_single_precision_networks_train_too():
    batches = minibatches(len(X), 16, 25, np.random.default_rng(2))
    losses = LossPopulation(LOSSES, "none")
    single = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    state = Trained.start(fresh_weights(network, 5).float(), len(LOSSES))
    stack = STACKS["dense"](single)
    ways = [
        train(
            Trained(state.theta.to(kind), state.velocity.to(kind)), stack, losses,
            losses.initial_phi(), Batches(X.to(kind), Y.to(kind), batches), "softmax", SGDS[2],
        ).theta
        for kind in (torch.float32, torch.float64)
    ]  # fmt: skip
    assert ways[0].dtype == torch.float32
    torch.testing.assert_close(ways[0].double(), ways[1], rtol=1e-4, atol=1e-5)


def test_training_can_be_broken_off_continued_and_thinned_out():
    """Segments with the state carried over, as in a race, end where one training ends."""
    batches = minibatches(len(X), 8, 20, np.random.default_rng(0))
    losses, rest = LossPopulation(LOSSES, "none"), LossPopulation(LOSSES[1:], "none")
    stack, sgd = STACKS["dense"](network()), SGDS[2]

    def further(state, losses, part):
        own = Batches(X, Y, part)
        return train(state, stack, losses, losses.initial_phi(), own, "identity", sgd)

    start = Trained.start(fresh_weights(network, 1), len(LOSSES))
    before = (start.theta.clone(), start.velocity.clone())
    whole = further(start, losses, batches)
    half = further(start, losses, batches[:9]).select([1, 2])
    torch.testing.assert_close(further(half, rest, batches[9:]).theta, whole.theta[1:])
    assert torch.equal(start.theta, before[0])
    assert torch.equal(start.velocity, before[1])


@pytest.mark.parametrize("segments", [[12], [5, 7]])
def test_dropout_masks_are_numbered_by_the_step_of_the_training(segments):
    """Whether or not the training is broken off between, against torch with the same seeds."""

    def noisy():
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()

    batches = minibatches(len(X), 8, 12, np.random.default_rng(0))
    losses, stack, sgd = LossPopulation(LOSSES[:1], "none"), STACKS["loop"](noisy()), SGDS[1]
    initial = fresh_weights(noisy, 1)
    state, done = Trained.start(initial, 1), 0
    for steps in segments:
        part = batches[done : done + steps]
        own = Batches(X, Y, part)
        state = train(state, stack, losses, losses.initial_phi(), own, "identity", sgd)
        done += steps
    module = noisy().train()
    nn.utils.vector_to_parameters(initial[0].clone(), module.parameters())
    optimiser = torch.optim.SGD(module.parameters(), sgd.lr, sgd.momentum, 0, sgd.weight_decay)
    for step, rows in enumerate(batches):
        optimiser.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(step)
            output = module(X[rows])
        batch_loss(LOSSES[0], Y[rows], output, weights="none").backward()
        optimiser.step()
    expected = nn.utils.parameters_to_vector(module.parameters()).detach()
    torch.testing.assert_close(state.theta[0] - initial[0], expected - initial[0])


def test_a_network_that_breaks_down_breaks_down_alone():
    losses = LossPopulation(
        [parse("square(y - f)"), parse("exp(exp(square(y - f) * 100.0))")], "none"
    )
    batches = minibatches(len(X), 8, 10, np.random.default_rng(0))
    stack = STACKS["dense"](network())
    state = Trained.start(fresh_weights(network, 1), 2)
    phi = losses.initial_phi()
    found = train(state, stack, losses, phi, Batches(X, Y, batches), "identity", SGD(0.05)).theta
    assert found[0].isfinite().all()
    assert not found[1].isfinite().all()


@given(rows=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(1, 30))
def test_minibatches_are_shuffled_passes(rows, batch, steps):
    found = minibatches(rows, batch, steps, np.random.default_rng(rows))
    size, a_pass = min(batch, rows), rows // min(batch, rows)
    assert found.shape == (steps, size)
    assert found.min() >= 0
    assert found.max() < rows
    for begin in range(0, steps, a_pass):
        seen = found[begin : begin + a_pass].ravel()
        assert len(set(seen)) == len(seen)
    assert np.array_equal(found, minibatches(rows, batch, steps, np.random.default_rng(rows)))
    # A longer training begins like a shorter one.
    longer = minibatches(rows, batch, steps + 5, np.random.default_rng(rows))
    assert np.array_equal(found, longer[:steps])


def test_passes_differ_and_reach_every_row():
    found = minibatches(12, 5, 40, np.random.default_rng(0))
    assert set(found.ravel()) == set(range(12))
    assert not np.array_equal(found[:2], found[2:4])


def test_fresh_weights_are_those_of_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first, again, other = (fresh_weights(network, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    assert torch.equal(first[0], parameters(network()))


@pytest.mark.parametrize("room", [2**28, 500, 0])
def test_initial_weights_are_the_same_whether_kept_or_made_again(monkeypatch, room):
    monkeypatch.setattr("evoloss.engine.training._BANK_BYTES", room)
    made = []

    def counted():
        made.append(1)
        return network()

    bank = InitialWeights([10, 20, 30], counted)
    for _ in range(2):
        for number, seed in enumerate((10, 20, 30)):
            assert torch.equal(bank[number], fresh_weights(network, seed))
    row = 8 * fresh_weights(network, 0).numel()
    assert len(made) == 3 + (3 - min(3, room // row))


def test_prediction_is_whole_however_many_rows(monkeypatch):
    stack, theta = STACKS["loop"](network()), fresh_weights(network, 0).repeat(2, 1)
    whole = predict(stack, theta, X, "softmax")
    monkeypatch.setattr("evoloss.engine.training._PREDICTED_ROWS", 7)
    torch.testing.assert_close(predict(stack, theta, X, "softmax"), whole)
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, len(X), dtype=torch.float64))


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """The functions that find the kernels' folder, as in a new process with its own cache."""
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path / "cache"))
    compiled._folder.cache_clear()
    yield tmp_path / "cache"
    compiled._folder.cache_clear()


def test_another_operator_table_gets_another_folder(fresh_cache, monkeypatch):
    first = compiled._folder()
    assert first.parent == fresh_cache / "kernels"
    text = compiled._source()
    compiled._folder.cache_clear()
    monkeypatch.setattr(compiled, "_source", lambda: text + "\n# another table")
    second = compiled._folder()
    assert second.parent == first.parent
    assert second != first
    compiled._folder.cache_clear()
    monkeypatch.setattr(compiled, "_source", lambda: text)
    assert compiled._folder() == first


def test_a_cache_that_cannot_be_made_falls_back_to_a_temporary_folder(fresh_cache):
    fresh_cache.write_text("a file where the folder should be")
    folder = compiled._folder()
    try:
        assert fresh_cache not in folder.parents
        assert folder.is_dir()
        assert os.access(folder, os.W_OK)
    finally:
        folder.rmdir()


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("EVOLOSS_CACHE", "/somewhere")
    assert compiled.cache_directory() == Path("/somewhere")
    monkeypatch.delenv("EVOLOSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert compiled.cache_directory() == Path("/caches/evoloss")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiled.cache_directory() == Path.home() / ".cache" / "evoloss"


@pytest.mark.slow  # compiles a kernel
def test_machine_code_is_kept_between_processes(tmp_path):
    """The second process finds every kernel that it uses in the cache of the first.

    Of few operators, so that it is soon compiled.
    """
    script = """
import torch
from evoloss.lang import ops
ops.ELEMENTWISE = tuple(row for row in ops.ELEMENTWISE if row.name in ("sub", "square"))
from evoloss.engine import kernels
from evoloss.engine.loss_population import LossPopulation
from evoloss.lang.parse import parse
losses, f = LossPopulation([parse("square(y - f)")]), torch.ones(1, 2, 1)
losses.gradient(f, torch.zeros(2, 1), losses.initial_phi())
stats = kernels.gradients.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    source = str(Path(evoloss.__file__).parents[1])
    environment = {**os.environ, "EVOLOSS_CACHE": str(tmp_path), "PYTHONPATH": source}
    answers = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert answers == [["0", "1"], ["1", "0"]]
