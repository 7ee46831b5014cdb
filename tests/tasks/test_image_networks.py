"""Convolutional networks: the papers' sizes, blocks written out by hand, packages by stand-ins."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional

from evoloss.errors import UserError
from evoloss.tasks.custom import supervised
from evoloss.tasks.image_networks import (
    Block,
    PreactivatedBlock,
    Subsampled,
    cifar_resnet,
    wide_resnet,
)
from evoloss.tasks.networks import NETWORKS, network_factory, takes_numbers
from evoloss.tasks.task import Training


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        ("all-cnn-c", 1.37e6),  # "≈ 1.4 M", Springenberg et al., table 3
        ("resnet18", 11.17e6),
        ("wrn-16-4", 2.75e6),
        ("wrn-16-8", 11.0e6),  # Zagoruyko & Komodakis, table 4
    ],
)
def test_parameters_are_as_many_as_published(spec, published):
    assert size(network_factory(spec, (3, 32, 32), 10)()) == pytest.approx(published, rel=0.005)


def test_deeper_members_of_the_families_have_the_published_sizes_too():
    resnet20 = cifar_resnet(3, 10, (16, 32, 64), blocks=3, projected=False)
    assert size(resnet20) == pytest.approx(0.27e6, rel=0.005)  # He et al. 2016, table 6
    assert size(wide_resnet(3, 10, blocks=6, k=4)) == pytest.approx(8.9e6, rel=0.01)  # WRN-40-4


@pytest.mark.parametrize(
    ("spec", "layers", "projections"),
    [("all-cnn-c", 9, 0), ("resnet8", 8, 0), ("resnet18", 18, 3), ("wrn-16-2", 14, 3)],
)
def test_depth_is_that_of_the_name(spec, layers, projections):
    """A wide network's 16 are its convolutions, projections too; the others' are all but those."""
    parts = network_factory(spec, (3, 32, 32), 10)().named_modules()
    weights = [name for name, part in parts if isinstance(part, nn.Conv2d | nn.Linear)]
    projecting = [name for name in weights if name.endswith(("shortcut.0", "projection"))]
    assert (len(weights) - len(projecting), len(projecting)) == (layers, projections)


@pytest.mark.parametrize("spec", ["all-cnn-c", "resnet8", "resnet18", "wrn-16-1"])
@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 32, 32), (2, 28, 17)])
def test_images_of_any_size_and_channels(spec, shape):
    network = network_factory(spec, shape, 7)()
    assert network(torch.randn(2, *shape)).shape == (2, 7)


def test_deep_networks_start_with_a_signal():
    """With torch's own start the outputs of All-CNN-C hardly depend on the image."""
    torch.manual_seed(0)
    network = network_factory("all-cnn-c", (3, 32, 32), 10)().eval()
    assert network(torch.randn(8, 3, 32, 32)).std(0).mean() > 0.02


def batch_norm(norm, x):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
    scale, shift = (p[:, None, None] for p in (norm.weight, norm.bias))
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift


def unevenly(module):
    """The block with batch norms that are not at their start."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


X = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 2)])
@pytest.mark.parametrize("projected", [True, False])
def test_a_residual_block_by_hand(width, stride, projected):
    block = unevenly(Block(4, width, stride, projected))
    first, first_norm, _, second, second_norm = block.residual
    h = functional.conv2d(X, first.weight, stride=stride, padding=1)
    h = batch_norm(first_norm, h).relu()
    h = batch_norm(second_norm, functional.conv2d(h, second.weight, padding=1))
    shortcut = X
    if stride == 2 and projected:
        convolution, norm = block.shortcut
        shortcut = batch_norm(norm, functional.conv2d(X, convolution.weight, stride=2))
    elif stride == 2:
        shortcut = torch.zeros(3, 6, 3, 3).double()
        shortcut[:, :4] = X[:, :, ::2, ::2]
    torch.testing.assert_close(block(X), (h + shortcut).relu())


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_preactivated_block_by_hand(width, stride):
    block = unevenly(PreactivatedBlock(4, width, stride))
    first, norm, _, second = block.residual
    active = batch_norm(block.activation[0], X).relu()
    h = functional.conv2d(active, first.weight, stride=stride, padding=1)
    h = functional.conv2d(batch_norm(norm, h).relu(), second.weight, padding=1)
    shortcut = X
    if (width, stride) != (4, 1):
        shortcut = functional.conv2d(active, block.projection.weight, stride=stride)
    torch.testing.assert_close(block(X), h + shortcut)


def test_only_the_small_resnet_has_shortcuts_without_parameters():
    kinds = {
        spec: {type(part.shortcut) for part in network_factory(spec, (3, 32, 32), 10)()
               if isinstance(part, Block)}
        for spec in ("resnet8", "resnet18")
    }  # fmt: skip
    assert kinds["resnet8"] == {nn.Identity, Subsampled}
    assert kinds["resnet18"] == {nn.Identity, nn.Sequential}


@pytest.mark.parametrize(
    ("spec", "shape", "vocabulary", "message"),
    [
        ("all-cnn-c", (1, 8, 8), None, "at least 9 × 9, not inputs of shape (1, 8, 8)"),
        ("resnet8", (3, 7, 32), None, "at least 8 × 8"),
        ("resnet18", (10,), None, "not inputs of shape (10,): use mlp:64,64"),
        ("wrn-16-2", (12,), 20, "not text: use char-gru"),
        ("wrn-16-0", (3, 32, 32), None, "positive whole number, for example wrn-16-4"),
        ("wrn-16-k", (3, 32, 32), None, "positive whole number"),
        ("wrn-28-10", (3, 32, 32), None, "unknown network 'wrn-28-10': the networks are"),
        ("resnet-18", (3, 32, 32), None, "(did you mean 'resnet18'?)"),
        ("allcnn", (3, 32, 32), None, "(did you mean 'all-cnn-c'?)"),
        ("resnet50", (3, 32, 32), None, "timm:NAME, torchvision:NAME, module:factory"),
    ],
)
def test_wrong_networks_are_told(spec, shape, vocabulary, message):
    with pytest.raises(UserError) as caught:
        network_factory(spec, shape, 10, vocabulary)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_row_that_cannot_be_normalised_is_told_before_the_search():
    images, labels = torch.randn(30, 1, 8, 8), torch.arange(30) % 2

    def flat():
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))

    supervised(images, labels, network=flat)
    with pytest.raises(UserError, match="more than 1 value per channel"):
        supervised(images, labels, network=flat, training=Training(batch=1))


def test_whole_numbers_are_pixels_to_all_named_networks_but_the_recurrent_one():
    named = [spec for spec in NETWORKS if spec not in ("char-gru", "module:factory")]
    assert all(map(takes_numbers, named))
    assert not any(map(takes_numbers, ("char-gru", "module:factory", nn.Identity)))


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for timm and torchvision that make a linear model and say how they were called."""
    calls = []

    def network(inputs, outputs):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))

    def create_model(name, num_classes, in_chans):
        calls.append(("timm", name, num_classes, in_chans))
        return network(in_chans, num_classes)

    def get_model(name, num_classes):
        calls.append(("torchvision", name, num_classes))
        if name == "broken":
            raise ValueError("no such luck")
        return network(3, num_classes)

    timm, torchvision = ModuleType("timm"), ModuleType("torchvision")
    timm.create_model, timm.list_models = create_model, lambda: ["resnet18", "vit_tiny"]
    torchvision.models = ModuleType("torchvision.models")
    torchvision.models.get_model = get_model
    torchvision.models.list_models = lambda: ["resnet18", "broken"]
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", torchvision.models)
    return calls


def test_models_of_packages(packages):
    x = torch.randn(2, 3, 32, 32)
    assert network_factory("torchvision:resnet18", (3, 32, 32), 10)()(x).shape == (2, 10)
    assert network_factory("timm:resnet18", (1, 32, 32), 5)()(x[:, :1]).shape == (2, 5)
    network_factory("timm:resnet18.a1_in1k", (3, 32, 32), 5)()
    assert packages == [
        ("torchvision", "resnet18", 10),
        ("timm", "resnet18", 5, 1),
        ("timm", "resnet18.a1_in1k", 5, 3),
    ]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("timm:resnet81", (3, 32, 32), "timm has no model 'resnet81' (did you mean 'resnet18'?)"),
        ("timm:resnet18", (10,), "takes images (channels, height, width)"),
        ("torchvision:", (3, 32, 32), "torchvision has no model ''"),
        ("torchvision:resnet18", (1, 28, 28), "takes images of 3 channels, not 1"),
        ("torchvision:broken", (3, 32, 32), "failed: ValueError: no such luck"),
    ],
)
def test_wrong_models_of_packages_are_told(spec, shape, message):
    with pytest.raises(UserError) as caught:
        network_factory(spec, shape, 10)()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_says_how_to_get_it(package, monkeypatch, tmp_path):
    """Hidden, where it is installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=f"needs the package {package}: pip install {package}"):
        network_factory(f"{package}:resnet18", (3, 32, 32), 10)
