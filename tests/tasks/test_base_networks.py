"""Base networks: shapes, the GRU against torch's own, transforms, a user's factories."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

from evoloss.errors import UserError
from evoloss.tasks.networks import CharGRU, network_factory


@pytest.mark.parametrize(
    ("spec", "shape", "kinds"),
    [
        ("linear", (10,), [nn.Linear]),
        ("linear", (1, 8, 8), [nn.Flatten, nn.Linear]),
        ("mlp:64,64", (10,), [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]),
        ("mlp:7", (2, 3), [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]),
    ],
)
def test_dense_networks_are_plain_sequences(spec, shape, kinds):
    network = network_factory(spec, shape, 3)()
    assert [type(layer) for layer in network] == kinds
    assert network(torch.randn(5, *shape)).shape == (5, 3)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 12, 16), (1, 40, 33)])
def test_lenet5_takes_any_small_image(shape):
    network = network_factory("lenet5", shape, 10)()
    assert network(torch.randn(4, *shape)).shape == (4, 10)


def test_lenet5_has_the_published_sizes():
    network = network_factory("lenet5", (1, 28, 28), 10)()
    sizes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert sizes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_a_factory_makes_fresh_networks():
    factory = network_factory("linear", (4,), 1)
    assert not torch.equal(factory()[0].weight, factory()[0].weight)


@pytest.fixture
def text():
    draws = torch.Generator().manual_seed(0)
    text = torch.randint(1, 9, (6, 7), generator=draws)
    for row, length in enumerate((7, 3, 1, 5, 7, 2)):
        text[row, length:] = 0
    return text


def test_char_gru_is_torchs_gru_on_packed_sequences(text):
    torch.manual_seed(1)
    ours = CharGRU(9, 4, hidden=5).double()
    theirs = nn.GRU(8, 5, batch_first=True).double()
    theirs.load_state_dict(
        {
            "weight_ih_l0": ours.input.weight,
            "bias_ih_l0": ours.input.bias,
            "weight_hh_l0": ours.state.weight,
            "bias_hh_l0": ours.state.bias,
        }
    )
    one_hot = nn.functional.one_hot(text, 9)[..., 1:].double()
    packed = nn.utils.rnn.pack_padded_sequence(
        one_hot, (text != 0).sum(1), batch_first=True, enforce_sorted=False
    )
    expected = ours.output(theirs(packed)[1][0])
    torch.testing.assert_close(ours(text), expected, rtol=1e-12, atol=1e-12)


def test_char_gru_does_not_see_padding(text):
    network = network_factory("char-gru", (7,), 4, vocabulary=9)()
    padded = nn.functional.pad(text, (0, 5))
    torch.testing.assert_close(network(padded), network(text), rtol=0, atol=0)


def test_char_gru_has_64_units_and_fits_its_inputs(text):
    network = network_factory("char-gru", (7,), 4, vocabulary=9)()
    assert network.state.in_features == 64
    assert network(text).shape == (6, 4)


# torch.func.jvp loads decompositions that torch itself still scripts.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_char_gru_under_vmap_and_jvp_equals_a_loop(text):
    networks = [CharGRU(9, 4, hidden=5).double() for _ in range(3)]
    stacked, _ = stack_module_state(networks)
    tangents = {name: torch.randn_like(value) for name, value in stacked.items()}

    def output(parameters):
        return functional_call(networks[0], parameters, (text,))

    values, derivatives = vmap(lambda p, t: jvp(output, (p,), (t,)))(stacked, tangents)
    step = 1e-6
    for number, network in enumerate(networks):
        torch.testing.assert_close(values[number], network(text))
        own = {name: value[number].detach() for name, value in stacked.items()}
        moved = [
            output({name: own[name] + sign * step * tangents[name][number] for name in own})
            for sign in (1, -1)
        ]
        difference = (moved[0] - moved[1]) / (2 * step)
        torch.testing.assert_close(derivatives[number], difference, rtol=1e-5, atol=1e-7)


def test_char_gru_has_second_derivatives(text):
    network = CharGRU(9, 2, hidden=3).double()
    weight = network.state.weight.detach().clone()

    def loss(value):
        return functional_call(network, {"state.weight": value}, (text,)).square().sum()

    def squared_gradient(value):
        return grad(loss)(value).square().sum()

    direction = torch.randn_like(weight)
    exact = (grad(squared_gradient)(weight) * direction).sum()
    ends = [squared_gradient(weight + sign * 1e-5 * direction) for sign in (1, -1)]
    torch.testing.assert_close(exact, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("spec", "shape", "vocabulary", "message"),
    [
        ("liner", (4,), None, "unknown network 'liner' (did you mean 'linear'?)"),
        ("resnet", (4,), None, "the networks are linear, mlp:64,64, lenet5, all-cnn-c"),
        ("mlp", (4,), None, "for example mlp:64,64"),
        ("mlp:64,x", (4,), None, "positive whole numbers"),
        ("mlp:0", (4,), None, "positive whole numbers"),
        ("lenet5", (4,), None, "takes images"),
        ("lenet5", (1, 8, 8), None, "at least 12 × 12"),
        ("char-gru", (4,), None, "takes texts"),
        ("linear", (4,), 20, "the inputs are text: use char-gru"),
        ("nowhere_at_all:make", (4,), None, "no module 'nowhere_at_all'"),
        ("math:sqroot", (4,), None, "has no 'sqroot' (did you mean 'sqrt'?)"),
        ("math:pi", (4,), None, "is a float"),
        (":make", (4,), None, "not of the form module:function"),
    ],
)
def test_wrong_specs_are_told(spec, shape, vocabulary, message):
    with pytest.raises(UserError) as caught:
        network_factory(spec, shape, 1, vocabulary)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OWN_NETWORKS = """
from torch import nn
def make(): return nn.Linear(4, 1)
def number(): return 3
def fails(): raise RuntimeError("no luck")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN_NETWORKS)
    (tmp_path / "broken_networks.py").write_text("import not_there_either")
    (tmp_path / "torn_networks.py").write_text("def f(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])


@pytest.mark.usefixtures("own_module")
def test_a_users_factory_is_found_in_the_current_directory():
    network = network_factory("own_networks:make", (4,), 1)()
    assert network(torch.zeros(2, 4)).shape == (2, 1)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_networks:number", "returns a int: it must return a torch.nn.Module"),
        ("own_networks:fails", "'own_networks:fails()' failed: RuntimeError: no luck"),
        ("broken_networks:make", "importing 'broken_networks' failed: ModuleNotFoundError"),
        ("torn_networks:make", "importing 'torn_networks' failed: SyntaxError"),
    ],
)
def test_a_wrong_factory_is_told(spec, message):
    with pytest.raises(UserError) as caught:
        network_factory(spec, (4,), 1)()
    assert message in str(caught.value)
