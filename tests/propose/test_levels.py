"""Losses on the other level: where answers have one token there is nothing to tell them apart."""

import numpy as np
import pytest
import torch

from evoloss.lang import zoo
from evoloss.lang.evaluate import torch_value
from evoloss.lang.expr import check, inputs_of
from evoloss.lang.parse import parse
from evoloss.lang.text import to_text
from evoloss.lang.types import MASKS, UNLEARNING, UNLEARNING_TOKENS
from evoloss.propose.levels import other_level
from evoloss.unlearn.objective import Rows, signature_of

NAMES = zoo.names("unlearning")


def rows(*lengths):
    """Answers of such lengths, padded to the longest."""
    rng = np.random.default_rng(len(lengths))
    answer = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]

    def log_probs():
        return torch.tensor(-rng.exponential(size=answer.shape)).where(answer, 0.0)

    return {side: Rows(log_probs(), log_probs(), answer) for side in ("forget", "retain")}


def value(loss, batch):
    masked = bool(inputs_of(loss) & MASKS)
    inputs = {}
    for side, each in batch.items():
        inputs |= each.tokens(side) if masked else each.means(side)
    return torch_value(loss, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_answers_of_one_token_have_the_same_loss_and_slopes_on_both_levels(name):
    loss = zoo.loss(name)
    other = other_level(loss)
    check(other, signature_of(other, retain=True))
    assert bool(inputs_of(loss) & MASKS) != bool(inputs_of(other) & MASKS)
    batch = rows(1, 1, 1, 1)
    sides = [each.log_probs.requires_grad_() for each in batch.values()]
    found, wanted = (value(each, batch) for each in (other, loss))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, sides, materialize_grads=True) for each in (found, wanted))
    )


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_other_level_is_the_loss_itself(name):
    loss, batch = zoo.loss(name), rows(3, 1, 5)
    torch.testing.assert_close(value(other_level(other_level(loss)), batch), value(loss, batch))


def test_unlikelihood_of_answers_is_of_their_mean_log_probabilities():
    batch = rows(3, 1, 5)
    forget, retain = (
        np.array([
            own[:n].mean() for own, n in zip(side.log_probs.numpy(), (3, 1, 5), strict=True)
        ])
        for side in batch.values()
    )  # fmt: skip
    wanted = -np.log1p(-np.exp(forget)).mean() - retain.mean()
    assert value(other_level(zoo.loss("ce-u")), batch).item() == pytest.approx(wanted)


def test_losses_that_count_tokens_stay_on_their_level():
    counted = "mean(where(mask_forget, log_probs_forget, 0)) - mean(log_probs_retain)"
    assert other_level(parse(counted, UNLEARNING_TOKENS)) is None


def test_references_are_selected_as_log_probabilities_are():
    loss = parse("mean(exp(log_probs_forget - ref_log_probs_forget))", UNLEARNING)
    selected = [f"select(mask_forget, {name}log_probs_forget)" for name in ("", "ref_")]
    assert to_text(other_level(loss)) == f"mean(exp({' - '.join(selected)}))"
