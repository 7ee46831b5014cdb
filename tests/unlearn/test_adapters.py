"""Adapters trained side by side, against `peft` and `torch.optim` one at a time."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from evoloss.errors import UserError
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS
from evoloss.unlearn.adapters import LoraSettings, attached, save
from evoloss.unlearn.log_probs import mean_log_probs, reference, rows_at_once, token_log_probs
from evoloss.unlearn.objective import LossObjective, batches
from evoloss.unlearn.schedule import KINDS, Schedule
from evoloss.unlearn.trainer import advance, begin
from families import model_of
from tiny_llama import sequences, sets, small_model, transformers

peft = pytest.importorskip("peft", reason="peft is not installed")

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LORA = LoraSettings(rank=2, alpha=8.0)
SCHEDULE = Schedule(steps=5, lr=1e-2, clip=0.5)
BATCH = 3
LOSSES = [
    parse(text, UNLEARNING)
    for text in (
        "mean(log_probs_forget) - mean(log_probs_retain)",
        "20*mean(softplus(0.1*(log_probs_forget - ref_log_probs_forget)))",
        "mean(square(log_probs_retain - ref_log_probs_retain)) + mean(log_probs_forget)",
    )
]


def by_hand(model, tokens, attention, answer):
    """Mean log-probabilities, sequence by sequence and token by token."""
    found = []
    for row, mask, wanted in zip(tokens, attention, answer, strict=True):
        row = row[: int(mask.sum())]
        logits = model(input_ids=row[None]).logits[0]
        scores = [
            logits[at - 1].log_softmax(-1)[row[at]] for at in range(1, len(row)) if wanted[at]
        ]
        found.append(torch.stack(scores).mean())
    return torch.stack(found)


def test_log_probabilities_are_those_of_the_answer_alone():
    model, data = small_model(), sequences(3, 5)
    with torch.no_grad():
        found = mean_log_probs(model, data)[0]
        wanted = by_hand(model, data.tokens, data.attention, data.answer)
        tokens = token_log_probs(model, data)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(tokens[data.answer == 0], torch.zeros(int((data.answer == 0).sum())))
    torch.testing.assert_close(reference(model, data, batch=2), tokens, rtol=1e-4, atol=1e-5)


def means(part, index):
    return part.reference[index].sum(1) / part.data.answer[index].sum(1)


def with_peft(loss_number, made=small_model, schedule=SCHEDULE):
    """The same training by `peft`, `torch.optim` and the losses written in torch."""
    model = made()
    data = sets(model)
    config = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules="all-linear", bias="none",
        fan_in_fan_out=made is not small_model,
    )  # fmt: skip
    adapted = peft.get_peft_model(model, config)
    named = {n: p for n, p in adapted.named_parameters() if "lora_" in n}
    with attached(made(), 1, LORA) as start:
        start.reset(7)
        state = start.states()[0]
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(state[name.replace(".default", "")])
    optimiser = torch.optim.AdamW(named.values(), lr=schedule.lr, weight_decay=0.0)
    scheduler = scheduler_of(schedule, optimiser)
    of_forget, of_retain = np.random.default_rng(3).spawn(2)
    forget = batches(7, 3, 5, of_forget)
    retain = batches(8, 3, 5, of_retain)
    for f, r in zip(forget, retain, strict=True):
        lf = mean_log_probs(adapted, data.forget.data.rows(f))[0]
        lr = mean_log_probs(adapted, data.retain.data.rows(r))[0]
        rf, rr = means(data.forget, f), means(data.retain, r)
        loss = (
            lf.mean() - lr.mean(),
            20 * torch.nn.functional.softplus(0.1 * (lf - rf)).mean(),
            (lr - rr).square().mean() + lf.mean(),
        )[loss_number]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), SCHEDULE.clip)
        optimiser.step()
        scheduler.step()
    return {name.replace(".default", ""): p.detach() for name, p in named.items()}


def trained(losses, model=None, schedules=None):
    model = model or small_model()
    data = sets(model)
    objective = LossObjective(losses, data, BATCH, SCHEDULE.steps, np.random.default_rng(3))
    schedules = schedules or [SCHEDULE] * len(losses)
    start = [begin(model, LORA, 7)] * len(losses)
    everyone = range(len(losses))
    return advance(model, LORA, objective, schedules, start, everyone, SCHEDULE.steps)


def scheduler_of(schedule, optimiser):
    """That of transformers."""
    rising = math.ceil(schedule.warmup * schedule.steps)
    name = schedule.kind + "_with_warmup" * (schedule.kind == "constant")
    return transformers.get_scheduler(name, optimiser, rising, schedule.steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_rates_are_those_of_transformers(kind, warmup):
    schedule = Schedule(23, 0.3, kind=kind, warmup=warmup)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=schedule.lr)
    scheduler = scheduler_of(schedule, optimiser)
    for step in range(23):
        assert schedule.rate(step) == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert schedule.rate(23) == 0


def test_a_training_is_never_all_warmup():
    assert [Schedule(1, 0.3, warmup=0.5).rate(step) for step in (0, 1)] == [0.3, 0]
    assert Schedule(2, 0.3, warmup=0.9).rate(1) == 0.3


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_side_by_side_with_other_schedules_is_as_with_peft(kind):
    schedule = replace(SCHEDULE, kind=kind, warmup=0.3)
    done = trained(LOSSES[:2], schedules=[schedule, SCHEDULE])
    for number, chosen in enumerate((schedule, SCHEDULE)):
        alone = with_peft(number, schedule=chosen)
        for name, weight in done[number].weights.items():
            torch.testing.assert_close(weight, alone[name], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("made", "at_once"),
    [(small_model, None), (small_model, 2), (small_model, 1), (partial(model_of, "GPT2"), None)],
)
def test_side_by_side_is_as_with_peft_one_by_one(made, at_once):
    with rows_at_once(at_once):
        done = trained(LOSSES, made())
    assert all(each.fine and each.moved > 0 and each.step == 5 for each in done)
    for number, state in enumerate(each.weights for each in done):
        wanted = with_peft(number, made)
        assert state.keys() == wanted.keys()
        for name, weight in state.items():
            torch.testing.assert_close(weight, wanted[name], rtol=2e-3, atol=2e-5)


def test_a_saved_adapter_loads_with_peft_alone(tmp_path):
    model, data = small_model(), sequences(3, 4)
    states = [each.weights for each in trained(LOSSES[:1], model)]
    save(states[0], LORA, model, "small", tmp_path / "adapter")
    with attached(model, 1, LORA) as adapters, torch.no_grad():
        adapters.load(states)
        wanted = mean_log_probs(model, data)
    loaded = peft.PeftModel.from_pretrained(small_model(), tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(mean_log_probs(loaded, data), wanted, rtol=1e-4, atol=1e-5)


def test_a_loss_that_breaks_down_leaves_the_others_alone():
    broken = parse("mean(exp(-1000*log_probs_forget))", UNLEARNING)
    done = trained([LOSSES[0], broken])
    assert [each.fine for each in done] == [True, False]
    assert done[1].moved == 0
    assert_close(done[0], trained([LOSSES[0]])[0])


@pytest.mark.parametrize("beside", [(), LOSSES[:1]])
def test_a_loss_that_hears_nothing_of_the_model_moves_nothing(beside):
    constant = parse("mean(detach(log_probs_forget))", UNLEARNING)
    *others, still = trained([*beside, constant])
    assert still.fine
    assert still.moved == 0
    assert all(each.moved > 0 for each in others)


def assert_close(found, wanted):
    for name, weight in found.weights.items():
        torch.testing.assert_close(weight, wanted.weights[name], rtol=1e-3, atol=1e-5)


def test_who_trains_beside_it_and_in_how_many_stages_makes_no_difference():
    wanted = trained(LOSSES)
    model = small_model()
    objective = LossObjective(LOSSES, sets(model), BATCH, 5, np.random.default_rng(3))
    standing = [begin(model, LORA, 7)] * 3
    for running, end in (([0, 1, 2], 2), ([2, 0], 4), ([2], 5)):
        before = [standing[each] for each in running]
        after = advance(model, LORA, objective, [SCHEDULE] * 3, before, running, end)
        for each, progress in zip(running, after, strict=True):
            standing[each] = progress
    assert [each.step for each in standing] == [4, 2, 5]
    assert_close(standing[2], wanted[2])


def test_each_candidate_has_its_own_schedule():
    short = Schedule(steps=3, lr=2e-2, clip=0.1)
    together = trained(LOSSES[:2], schedules=[short, SCHEDULE])
    assert_close(together[0], trained(LOSSES[:1], schedules=[short])[0])
    assert_close(together[1], trained(LOSSES[:2])[1])


def test_a_loss_of_tokens_sees_every_token_and_its_mask():
    by_token = parse(
        "sum(select(mask_forget, log_probs_forget)) / 100 - "
        "mean(select(mask_retain, log_probs_retain - ref_log_probs_retain))",
        UNLEARNING_TOKENS,
    )
    model = small_model()
    data = sets(model)
    objective = LossObjective([by_token, LOSSES[0]], data, BATCH, 5, np.random.default_rng(3))
    with torch.no_grad():
        found = objective.values(model, 0, [0])
        rows = data.forget.data.rows(batches(7, 3, 5, np.random.default_rng(3).spawn(2)[0])[0])
        wanted = token_log_probs(model, rows).sum() / 100
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)


def test_afterwards_the_model_is_as_it_was():
    model = small_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    grads = [p.requires_grad for p in model.parameters()]
    with attached(model, 2, LORA):
        assert any("a" in name.split(".")[-1:] for name, _ in model.named_parameters())
    assert [p.requires_grad for p in model.parameters()] == grads
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_before_the_first_step_nothing_has_changed():
    model, data = small_model(), sequences(3, 4)
    with torch.no_grad():
        wanted = mean_log_probs(model, data)[0]
        with attached(model, 2, LORA) as adapters:
            adapters.reset(0)
            found = mean_log_probs(model, data, 2)
    for copy in found:
        torch.testing.assert_close(copy, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_without_such_layers_is_told():
    with (
        pytest.raises(UserError, match="a Linear has no linear layer besides its head"),
        attached(torch.nn.Linear(2, 2), 1, LORA),
    ):
        pass


def test_minibatches_are_shuffled_passes():
    drawn = batches(7, 3, 5, np.random.default_rng(0))
    assert drawn.shape == (5, 3)
    for first in (0, 2):
        assert len(set(drawn[first : first + 2].flatten().tolist())) == 6
    assert batches(2, 8, 3, np.random.default_rng(0)).shape == (3, 2)
