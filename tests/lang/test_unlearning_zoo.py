"""The known unlearning losses against their definitions, written with torch."""

import pytest
import torch
from torch.nn import functional as F

from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.lang.evaluate import torch_value
from evoloss.lang.export import export_batch
from evoloss.lang.expr import check, inputs_of
from evoloss.lang.fingerprint import batch_direction_fingerprint
from evoloss.lang.screening import fault
from evoloss.lang.types import UNLEARNING_TOKENS

NAMES = zoo.names("unlearning")


def inputs(seed: int = 0, tokens: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = UNLEARNING_TOKENS.inputs
    found = {
        name: -2 * torch.rand(9, generator=generator, dtype=torch.float64) - 0.01 for name in names
    }
    for side in ("forget", "retain") if tokens else ():
        found[f"mask_{side}"] = torch.rand(9, generator=generator) > 0.3
    return found


# With x the mean log-probability of an answer or one of its tokens, and -x its loss.
DEFINITIONS = {
    "ga": lambda f, r, f0, r0: f.mean(),
    "grad-diff": lambda f, r, f0, r0: f.mean() - r.mean(),
    "npo": lambda f, r, f0, r0: -2 / 0.1 * F.logsigmoid(0.1 * (-f - -f0)).mean() - r.mean(),
    "sim-npo": lambda f, r, f0, r0: (
        0.125 * (-F.logsigmoid(4.5 * (-f - 0.0)).mean() * 2 / 4.5) - r.mean()
    ),
    "kl-retain": lambda f, r, f0, r0: f.mean() + ((r - r0).exp() - 1 - (r - r0)).mean(),
    "wga": lambda f, r, f0, r0: -(f.exp().detach() ** 1.0 * -f).mean() - r.mean(),
    "sat-imp": lambda f, r, f0, r0: (
        -0.1 * (f.exp().detach() ** 5 * (1 - f.exp().detach()) ** 1 * -f).mean() - r.mean()
    ),
    "ce-u": lambda f, r, f0, r0: -torch.log1p(-f.exp()).mean() - r.mean(),
}


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_the_definition(name):
    entry = zoo.ZOO[name]
    tokens = entry.signature is UNLEARNING_TOKENS
    leaves = {
        n: t.requires_grad_() if t.is_floating_point() else t for n, t in inputs(1, tokens).items()
    }
    mine = torch_value(zoo.loss(name), {n: t.double() for n, t in leaves.items()})
    given = [leaves[n] for n in list(UNLEARNING_TOKENS.inputs)[:4]]
    if tokens:
        masks = leaves["mask_forget"], leaves["mask_retain"]
        given = [tensor[masks[index % 2]] for index, tensor in enumerate(given)]
    theirs = DEFINITIONS[name](*given)
    torch.testing.assert_close(mine, theirs)
    trained = (leaves["log_probs_forget"], leaves["log_probs_retain"])
    for a, b in zip(
        torch.autograd.grad(mine, trained, materialize_grads=True),
        torch.autograd.grad(theirs, trained, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", zoo.FORGET_TERMS)
def test_without_a_retain_set_the_forget_term_of_the_definition_is_left(name):
    entry, given = zoo.FORGET_TERMS[name], inputs(1, tokens=True)
    assert entry.signature.inputs.keys() == {
        each for each in zoo.ZOO[name].signature.inputs if each.endswith("forget")
    }
    mine = zoo.loss_among(zoo.FORGET_TERMS, name)
    check(mine, entry.signature)
    assert fault(mine, entry.signature) is None
    kept = given["mask_forget"]
    kept = kept if "mask_forget" in entry.signature.inputs else torch.ones_like(kept)
    f = given["log_probs_forget"].requires_grad_()
    theirs = DEFINITIONS[name](
        f[kept], torch.zeros(1), given["ref_log_probs_forget"][kept], torch.zeros(1)
    )
    value = torch_value(mine, {n: t if n == "log_probs_forget" else t.double()
                               for n, t in given.items() if n.endswith("forget")})  # fmt: skip
    torch.testing.assert_close(value, theirs)
    torch.testing.assert_close(torch.autograd.grad(value, f), torch.autograd.grad(theirs, f))


def test_a_forget_term_has_no_weight_of_a_retain_term():
    assert set(zoo.FORGET_TERMS) == {"ga", "npo", "sim-npo", "wga", "sat-imp", "ce-u"}
    assert dict(zoo.FORGET_TERMS["npo"].constants) == {"beta": 0.1}
    assert zoo.loss_among(zoo.FORGET_TERMS, "npo", beta=0.5) != zoo.loss_among(
        zoo.FORGET_TERMS, "npo"
    )
    with pytest.raises(UserError, match=r"'alpha': the npo loss has beta"):
        zoo.loss_among(zoo.FORGET_TERMS, "npo", alpha=2.0)


def test_ce_u_has_the_gradient_of_its_definition_in_the_logits():
    """The target is the model's own distribution without the true token, held fixed."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 11, (6,), generator=generator)
    without = logits.detach().scatter(1, labels[:, None], -torch.inf).softmax(1)
    defined = F.cross_entropy(logits, without)
    picked = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    nothing = {name: torch.full((6,), -1.0, dtype=torch.float64) for name in inputs()}
    everything = {**nothing, "mask_forget": torch.ones(6), "mask_retain": torch.ones(6)}
    mine = torch_value(zoo.loss("ce-u", alpha=0.0), {**everything, "log_probs_forget": picked})
    torch.testing.assert_close(
        *(torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (mine, defined))
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_one_passes_the_cheap_tests_and_can_be_exported(name):
    entry = zoo.ZOO[name]
    assert fault(zoo.loss(name), entry.signature) is None
    assert inputs_of(zoo.loss(name)) <= set(entry.signature.inputs)
    for format in ("torch", "latex", "json"):
        assert export_batch(zoo.loss(name), entry.signature, format)


def test_they_train_differently():
    kinds = [zoo.ZOO[name].signature for name in NAMES]
    found = [batch_direction_fingerprint(zoo.loss(n), s) for n, s in zip(NAMES, kinds, strict=True)]
    assert None not in found
    assert len(set(found)) == len(NAMES)


def test_the_constants_are_those_of_the_papers():
    assert dict(zoo.ZOO["npo"].constants)["beta"] == 0.1
    assert dict(zoo.ZOO["sim-npo"].constants) == {"beta": 4.5, "delta": 0.0, "gamma": 0.125}
    assert zoo.loss("sim-npo", delta=1.0) != zoo.loss("sim-npo")
