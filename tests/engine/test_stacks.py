"""Stacked networks against one network at a time: outputs, both Jacobian products, noise."""

import json

import pytest
import torch
from torch import nn
from torch.func import functional_call

from evoloss.engine import stacking
from evoloss.engine.dense import DenseStack, dense_layers
from evoloss.engine.stack import Layout, LoopStack, VmapStack, parameters
from evoloss.engine.stacking import OPERATIONS, WAYS, MixedStack, choose, make_stack
from evoloss.errors import UserError

COPIES, ROWS, INPUTS, OUTPUTS = 5, 4, 3, 2


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(INPUTS, 6), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.Tanh(),
        nn.Linear(5, 4), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, OUTPUTS),
    )  # fmt: skip


def linear():
    return nn.Linear(INPUTS, OUTPUTS)


def frozen():
    """Not dense for its middle layer, which is not trained."""
    module = nn.Sequential(nn.Linear(INPUTS, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, OUTPUTS))
    module[2].requires_grad_(False)
    return module


class Scaled(nn.Module):
    """A network with buffers and a parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3]))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.layer = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, x):
        return self.layer(torch.sin(self.scale * (x - self.mean)))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 2, 2)
        self.head = nn.Linear(4, OUTPUTS)

    def forward(self, x):
        return self.head(torch.relu(self.convolution(x[:, None])).flatten(1))


def normed():
    return nn.Sequential(nn.Linear(INPUTS, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, OUTPUTS))


def noisy():
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.Dropout(0.5), nn.Linear(16, OUTPUTS))


NETWORKS = (linear, mlp, frozen, Scaled, Convolution, normed)
WAYS_OF_STACKING = {
    "dense": lambda module: DenseStack(module, dense_layers(module)),
    "vmap": VmapStack,
    "vmap:2": lambda module: VmapStack(module, 2),
    "loop": LoopStack,
    "mixed": lambda module: make_stack(
        module, {"train": "loop", "pull_shared": "vmap:6", "push": "vmap"}
    ),
}
EVERY = [
    pytest.param(network, way, id=f"{network.__name__}-{way}")
    for network in NETWORKS
    for way in WAYS_OF_STACKING
    if way != "dense" or network in (linear, mlp)
]


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(network):
    torch.manual_seed(7)
    return network().double()


def by_hand(network):
    """One copy as a function of its row of parameters, written without the engine."""
    module = made(network)
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def function(row, x):
        named, at = {}, 0
        for name, p in trained:
            named[name] = row[at : at + p.numel()].reshape(p.shape)
            at += p.numel()
        assert at == len(row)
        return functional_call(module, named, (x,))

    return function


def rows_of(network, copies, seed=0):
    start = torch.cat([p.detach().flatten() for p in made(network).parameters() if p.requires_grad])
    return start + 0.3 * draws(seed, copies, len(start))


def jacobian(network, row, x):
    """(B, C, D) by reverse mode over every output."""
    function = by_hand(network)
    return torch.autograd.functional.jacobian(lambda row: function(row, x), row)


@pytest.mark.parametrize(("network", "way"), EVERY)
@pytest.mark.parametrize("copies", [1, COPIES])
def test_outputs(network, way, copies):
    stack = WAYS_OF_STACKING[way](made(network))
    theta, x = rows_of(network, copies), draws(1, ROWS, INPUTS)
    expected = torch.stack([by_hand(network)(row, x) for row in theta])
    leaf = theta.clone().requires_grad_()
    forward = stack.forward(leaf, x)
    for found in (forward, stack.pull(theta, x)[0], stack.predict(theta, x)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not stack.pull(theta, x)[0].requires_grad
    assert not stack.predict(leaf, x).requires_grad
    (slope,) = torch.autograd.grad(forward.square().sum(), leaf)
    jacobians = [jacobian(network, row, x) for row in theta]
    by_rows = [
        torch.einsum("bc,bcd->d", 2 * y, j) for y, j in zip(expected, jacobians, strict=True)
    ]
    torch.testing.assert_close(slope, torch.stack(by_rows).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("network", "way"), EVERY)
@pytest.mark.parametrize("shared", [True, False])
def test_both_jacobian_products(network, way, shared):
    stack = WAYS_OF_STACKING[way](made(network))
    theta, x = rows_of(network, 1 if shared else COPIES), draws(1, ROWS, INPUTS)
    gradient, along = draws(2, COPIES, ROWS, OUTPUTS), draws(3, COPIES, theta.shape[1])
    jacobians = torch.stack([jacobian(network, row, x) for row in theta]).expand(COPIES, -1, -1, -1)
    raw, pullback = stack.pull(theta, x)
    assert raw.shape == (len(theta), ROWS, OUTPUTS)
    given = gradient.clone()
    pulled = pullback(gradient)
    expected = torch.einsum("pbc,pbcd->pd", gradient, jacobians)
    torch.testing.assert_close(pulled, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(gradient, given)
    pushed = stack.push(theta, x, along)
    expected = torch.einsum("pbcd,pd->pbc", jacobians, along)
    torch.testing.assert_close(pushed, expected, rtol=1e-10, atol=1e-12)
    assert not pulled.requires_grad
    assert not pushed.requires_grad


@pytest.mark.parametrize("way", [way for way in WAYS_OF_STACKING if way != "dense"])
@pytest.mark.parametrize("shared", [True, False])
def test_dropout_masks_are_those_of_the_step(way, shared):
    """The same in both derivative passes, over copies and over chunks; others after a reseed."""
    stack = WAYS_OF_STACKING[way](made(noisy))
    row, x = rows_of(noisy, 1), draws(1, ROWS, INPUTS)
    theta = row if shared else row.repeat(COPIES, 1)
    stack.reseed(3)
    raw, pullback = stack.pull(theta, x)
    assert torch.equal(raw, raw[:1].expand_as(raw))
    gradient, along = draws(2, COPIES, ROWS, OUTPUTS), draws(3, COPIES, row.shape[1])
    inner = (gradient * stack.push(theta, x, along)).flatten(1).sum(1)
    torch.testing.assert_close((pullback(gradient) * along).sum(1), inner)
    torch.testing.assert_close(stack.forward(theta, x), raw)
    stack.reseed(4)
    assert not torch.allclose(stack.pull(theta, x)[0], raw)
    stack.reseed(3)
    assert torch.equal(stack.pull(theta, x)[0], raw)


def test_dropout_really_drops_and_the_ways_drop_alike():
    outputs = []
    theta, x = rows_of(noisy, COPIES), draws(1, ROWS, INPUTS)
    for way in ("loop", "vmap", "vmap:2"):
        stack = WAYS_OF_STACKING[way](made(noisy))
        stack.reseed(5)
        outputs.append(stack.forward(theta, x))
        assert not torch.allclose(outputs[-1], stack.predict(theta, x))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])


@pytest.mark.parametrize("way", [way for way in WAYS_OF_STACKING if way != "dense"])
def test_predicting_drops_nothing_and_leaves_the_module_in_training(way):
    module = made(noisy)
    stack, theta, x = WAYS_OF_STACKING[way](module), rows_of(noisy, 2), draws(1, ROWS, INPUTS)
    plain = made(noisy).eval()
    expected = []
    for row in theta:
        nn.utils.vector_to_parameters(row, plain.parameters())
        expected.append(plain(x).detach())
    torch.testing.assert_close(stack.predict(theta, x), torch.stack(expected))
    assert module.training


@pytest.mark.parametrize("way", [way for way in WAYS_OF_STACKING if way != "dense"])
def test_torchs_global_generator_is_left_alone(way):
    stack, theta, x = WAYS_OF_STACKING[way](made(noisy)), rows_of(noisy, 2), draws(1, ROWS, INPUTS)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    stack.pull(theta, x)[1](draws(2, 2, ROWS, OUTPUTS))
    stack.push(theta, x, theta)
    stack.predict(theta, x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("way", [way for way in WAYS_OF_STACKING if way != "dense"])
def test_batch_norm_uses_the_batch_and_remembers_nothing(way):
    stack, theta = WAYS_OF_STACKING[way](made(normed)), rows_of(normed, 2)
    x, other = draws(1, ROWS, INPUTS), 100 + draws(2, ROWS, INPUTS)
    first = stack.forward(theta, x)
    stack.forward(theta, other)
    assert torch.equal(stack.forward(theta, x), first)
    torch.testing.assert_close(stack.predict(theta, x), first)
    # Standardised by its own batch, an input that is shifted in a direction gives the same.
    shifted = stack.predict(theta, x + 5.0)
    torch.testing.assert_close(shifted, first)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_layout_splits_and_joins(network):
    module = made(network)
    layout, theta = Layout(module), rows_of(network, 3)
    assert layout.total == theta.shape[1] == len(parameters(module))
    named = layout.split(theta)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert {name: each.shape[1:] for name, each in named.items()} == {
        name: p.shape for name, p in trained.items()
    }
    assert torch.equal(layout.join(named, leading=1), theta)
    single = layout.split(parameters(module))
    assert all(torch.equal(single[name], p) for name, p in trained.items())


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (nn.Linear(2, 3), 1),
        (nn.Sequential(nn.Linear(2, 3)), 1),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), 2),
        (nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 1), nn.Sigmoid()), 2),
    ],
)
def test_dense_networks_are_recognised(module, count):
    assert len(dense_layers(module)) == count


class MyLinear(nn.Linear):
    """May do anything."""


class MySequential(nn.Sequential):
    """May do anything too."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(),
        nn.Flatten(),
        nn.Sequential(nn.ReLU(), nn.Linear(2, 3)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Tanh()),
        nn.Sequential(nn.Linear(2, 3), nn.GELU()),
        nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(3, 1)),
        nn.Sequential(nn.Flatten(2), nn.Linear(2, 3)),
        nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.Linear(3, 1)),
        nn.Sequential(nn.Conv1d(1, 1, 1)),
        nn.Sequential(MyLinear(2, 3)),
        MyLinear(2, 3),
        MySequential(nn.Linear(2, 3)),
        nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1)),
        Scaled(),
    ],
    ids=lambda module: repr(module).replace("\n", "")[:60],
)
def test_other_networks_are_not_taken_for_dense(module):
    assert dense_layers(module) is None


def test_shared_layers_are_not_taken_for_dense():
    layer = nn.Linear(3, 3)
    assert dense_layers(nn.Sequential(layer, nn.ReLU(), layer)) is None


def test_an_activation_used_twice_counts_twice():
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(INPUTS, 6), relu, nn.Linear(6, 5), relu, nn.Linear(5, 2))
    x = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0))
    stack = DenseStack(module, dense_layers(module))
    torch.testing.assert_close(stack.predict(parameters(module)[None], x)[0], module(x).detach())


def test_tied_weights_and_hooks_are_not_taken_for_dense():
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    assert dense_layers(tied) is None
    hooked = nn.Sequential(nn.Linear(3, 3))
    hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    assert dense_layers(hooked) is None


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_a_layer_used_twice_is_one_set_of_parameters(way):
    layer = nn.Linear(3, 3).double()
    module = nn.Sequential(layer, nn.Tanh(), layer)
    theta, x = draws(0, 2, 12), draws(1, ROWS, 3)
    found = WAYS_OF_STACKING[way](module).forward(theta, x)
    for row, output in zip(theta, found, strict=True):
        weight, bias = row[:9].view(3, 3), row[9:]
        torch.testing.assert_close(output, (x @ weight.T + bias).tanh() @ weight.T + bias)


X = torch.ones(ROWS, INPUTS)


def test_a_plain_perceptron_is_stacked_dense_without_a_trial(cache, monkeypatch):
    monkeypatch.setattr(stacking, "_trial", None)
    choice = choose(mlp(), "auto", COPIES, X)
    assert {choice[operation] for operation in OPERATIONS} == {"dense"}
    assert isinstance(make_stack(mlp(), choice), DenseStack)


def test_a_trial_is_made_once_and_remembered(cache, monkeypatch):
    module = Convolution()
    choice = choose(module, "auto", COPIES, X)
    assert {choice[operation] for operation in OPERATIONS} <= set(WAYS)
    assert choice["threads"] in {"1", str(torch.get_num_threads())}
    assert isinstance(make_stack(module, choice), MixedStack)
    [kept] = (cache / "stacking").iterdir()
    assert json.loads(kept.read_text()) == choice
    monkeypatch.setattr(stacking, "_trial", None)
    other = {**choice, "train": "vmap"}
    kept.write_text(json.dumps(other))
    assert choose(module, "auto", COPIES, X) == other


def test_another_network_or_number_of_copies_has_another_memory(cache):
    for module, copies in ((Convolution(), 2), (Convolution(), 3), (Scaled(), 2)):
        choose(module, "auto", copies, X)
    assert len(list((cache / "stacking").iterdir())) == 3


def test_a_wish_needs_no_trial(cache, monkeypatch):
    monkeypatch.setattr(stacking, "_trial", None)
    for way in ("loop", "vmap"):
        choice = choose(Convolution(), way, COPIES, X)
        assert {choice[operation] for operation in OPERATIONS} == {way}
    assert not cache.exists()


def test_a_trial_leaves_the_number_of_threads(cache):
    before = torch.get_num_threads()
    choose(Convolution(), "auto", 2, X)
    assert torch.get_num_threads() == before


def test_a_cache_that_cannot_be_written_costs_only_the_memory(cache):
    cache.write_text("a file where the folder should be")
    assert choose(Convolution(), "auto", 2, X)["train"] in WAYS


def test_dense_is_refused_for_other_networks():
    choice = {**dict.fromkeys(OPERATIONS, "dense"), "threads": "1"}
    with pytest.raises(UserError, match="Linear and activation layers in a row"):
        make_stack(Convolution(), choice)


class Rounded(nn.Module):
    """Works under no transformation: it leaves torch on the way."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, x):
        return torch.from_numpy(self.layer(x).detach().numpy())


def test_a_network_that_cannot_be_differentiated_is_the_users_mistake(cache):
    with pytest.raises(UserError, match="cannot be differentiated"):
        choose(Rounded(), "auto", 2, X)
