"""The hand-written model-style replies: what is read means what the source means, the rest is not.

The sources of the valid replies are run with torch as the oracle. Those of the others never are:
what the repairable ones mean is written out by hand below.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from evoloss.lang.evaluate import torch_value
from evoloss.lang.parse import parse
from evoloss.lang.reader import DEFAULT_EPOCHS, Read, Refused, read
from evoloss.lang.text import to_text
from evoloss.lang.types import UNLEARNING

FILE = Path(__file__).resolve().parents[2] / ".." / "shared/data/proposals/proposals.jsonl"
pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason="the replies are not part of this repository"
)
PROPOSALS = (
    [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    if FILE.exists()
    else []
)
NO_REFERENCE = replace(
    UNLEARNING,
    inputs={name: kind for name, kind in UNLEARNING.inputs.items() if "ref" not in name},
)


def of_kind(*kinds: str) -> list:
    return [pytest.param(p, id=p["id"]) for p in PROPOSALS if p["kind"] in kinds]


def by_name(reply: str, signature=UNLEARNING) -> dict[str, Read]:
    return {each.name: each for each in read(reply, signature) if isinstance(each, Read)}


def batch(seed: int, forget: int, retain: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: forget if name.endswith("forget") else retain for name in UNLEARNING.inputs}
    scale = (0.3, 1.0, 4.0)[seed % 3]
    return {
        name: -scale * 3 * torch.rand(size, generator=generator, dtype=torch.float64) ** 2 - 0.01
        for name, size in sizes.items()
    }


def value_and_gradients(function, inputs):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    value = function(leaves)
    trained = [leaves["log_probs_forget"], leaves["log_probs_retain"]]
    found = torch.autograd.grad(value, trained, allow_unused=True)
    return value, [torch.zeros(()) if each is None else each for each in found]


def assert_same(expression, source, inputs) -> None:
    mine = value_and_gradients(lambda leaves: torch_value(expression, leaves), inputs)
    theirs = value_and_gradients(source, inputs)
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-7, atol=1e-8)
    for a, b in zip(mine[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b.expand_as(a), rtol=1e-7, atol=1e-8)


@pytest.fixture(autouse=True)
def _double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("proposal", of_kind("valid"))
def test_valid_functions_mean_what_torch_computes(proposal):
    assert proposal["kind"] == "valid"
    namespace = {"torch": torch, "math": math, "F": F}
    exec(proposal["raw"].rpartition("<answer>")[2].partition("</answer>")[0], namespace)
    for signature in (UNLEARNING, NO_REFERENCE):
        found = by_name(proposal["raw"], signature)
        assert len(found) == proposal["n_losses"]
        for name, loss in found.items():
            function = namespace[name]
            assert f"epochs: {loss.epochs}" in function.__doc__
            for seed, sizes in enumerate([(8, 8), (8, 8), (5, 9), (9, 4), (2, 2)]):
                inputs = batch(seed, *sizes)
                given = {n: t for n, t in inputs.items() if n in signature.inputs}

                def source(leaves, function=function, given=given):
                    return function(**{name: leaves[name] for name in given})

                assert_same(loss.expression, source, inputs)


@pytest.mark.parametrize("proposal", of_kind("valid", "repairable"))
def test_what_is_read_prints_and_parses(proposal):
    for loss in by_name(proposal["raw"]).values():
        assert parse(to_text(loss.expression), UNLEARNING) == loss.expression


def npo(f, f0, beta):
    return -F.logsigmoid(-beta * (f - f0)).mean() / beta


def weighted(x, temperature):
    return torch.softmax(x.detach() / temperature, 0)


MEANINGS = {
    "p005": [
        lambda f, r, f0, r0: F.relu(f.mean() + 4) + F.relu(-0.1 - r.mean())
        + 0.01 * (f.mean() - r.mean()),
        lambda f, r, f0, r0: F.softplus(f + 3).mean() + F.relu(-r).mean(),
        lambda f, r, f0, r0: -torch.clamp(-f.mean(), max=6.0) + r.mean().abs(),
    ],
    "p020": [
        lambda f, r, f0, r0: -r.mean() + 2 * torch.sigmoid(f + 3).mean(),
        lambda f, r, f0, r0: 0.8 * F.relu(f + 5).mean() - r.mean(),
    ],
    "p022": [
        lambda f, r, f0, r0: f.clamp(min=-6).mean() - r.mean(),
        lambda f, r, f0, r0: (f.exp().detach() * f).mean() - 0.5 * r.mean(),
    ],
    "p023": [lambda f, r, f0, r0: F.softplus(f + 5.5).mean() - 1.1 * r.mean()],
    "p026": [
        lambda f, r, f0, r0: npo(f, f0, 0.5) - r.mean(),
        lambda f, r, f0, r0: F.relu(f + 4.5).mean() + 1.5 * F.relu(-0.05 - r).mean(),
    ],
    "p027": [
        lambda f, r, f0, r0: torch.log1p((f + 3).exp()).mean() - r.mean(),
        lambda f, r, f0, r0: (f - f0).clamp(max=3).exp().mean() - 2 * r.mean(),
    ],
    "p030": [
        lambda f, r, f0, r0: f.exp().mean() - r.mean(),
        lambda f, r, f0, r0: F.softplus(f - f0).mean() + F.softplus(-r).mean(),
    ],
    "p031": [
        lambda f, r, f0, r0: -torch.log(1 - f.clamp(max=-1e-4).exp()).mean() - r.mean(),
        lambda f, r, f0, r0: -(weighted(f, 2.0) * torch.log(1 - f.clamp(max=-1e-4).exp())).sum()
        - (weighted(-r, 1.0) * r).sum(),
    ],
    "p036": [
        lambda f, r, f0, r0: 2 * torch.sigmoid(f + 2.5).mean() - r.mean(),
        lambda f, r, f0, r0: F.relu(4 - (r.mean() - f.mean())) - 0.2 * r.mean(),
    ],
    "p039": [lambda f, r, f0, r0: (F.softplus(2 * (f + 4)) / 2).mean() - r.mean()],
    "p044": [
        lambda f, r, f0, r0: 1.5 * f.exp().mean() - r.mean(),
        lambda f, r, f0, r0: F.relu(f + 5).mean() - 1.2 * r.mean(),
    ],
    "p058": [
        lambda f, r, f0, r0: F.softplus(f + 2, beta=2).mean() + F.softplus(-r, beta=2).mean(),
        lambda f, r, f0, r0: F.relu(f + math.log(50)).mean() - r.mean(),
    ],
}  # fmt: skip
EPOCHS = {"p022": [3, 5], "p027": [DEFAULT_EPOCHS] * 2, "p039": [3], "p044": [4, 4]}


@pytest.mark.parametrize("proposal", of_kind("repairable"))
def test_repairable_functions_mean_what_is_meant(proposal):
    found = list(by_name(proposal["raw"]).values())
    meanings = MEANINGS[proposal["id"]]
    assert len(found) == len(meanings) == proposal["n_losses"]
    if proposal["id"] in EPOCHS:
        assert [loss.epochs for loss in found] == EPOCHS[proposal["id"]]
    for loss, meaning in zip(found, meanings, strict=True):
        for seed, sizes in enumerate([(8, 8), (8, 8), (5, 9)]):
            assert_same(loss.expression, lambda t, m=meaning: m(*t.values()), batch(seed, *sizes))


@pytest.mark.parametrize("proposal", of_kind("invalid", "hostile"))
def test_nothing_beyond_the_limit_is_accepted(proposal):
    found = read(proposal["raw"])
    assert sum(isinstance(each, Read) for each in found) <= proposal["n_losses"]
    lines = proposal["raw"].count("\n") + 1
    assert all(1 <= each.line <= lines for each in found)
    assert all(each.reason for each in found if isinstance(each, Refused))
    assert found
