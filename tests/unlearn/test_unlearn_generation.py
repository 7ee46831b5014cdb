"""Greedy generation side by side, against `generate` of transformers and peft one by one."""

import pytest
import torch

from evoloss.unlearn.adapters import LoraSettings, attached, save
from evoloss.unlearn.generation import greedy
from evoloss.unlearn.tokens import Encoder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")
import fictional  # noqa: E402

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LORA = LoraSettings(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(fictional.tokenizer())


@pytest.fixture(scope="module")
def prompts(encoder):
    """Of different lengths; one has no meaning."""
    found = [encoder.prompt(each) for each in (*fictional.data().forget, *fictional.data().holdout)]
    return [*found, found[0] + found[3], found[2][:3]]


def alone(model, encoder, prompt, limit):
    """One prompt without padding, by transformers."""
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        found = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
            max_new_tokens=limit, eos_token_id=encoder.end, pad_token_id=encoder.pad,
        )[0, len(prompt) :].tolist()  # fmt: skip
    return tuple(found[: found.index(encoder.end)] if encoder.end in found else found)


@pytest.mark.parametrize("batch", [3, 32])
def test_answers_are_those_of_transformers(encoder, prompts, batch):
    model = fictional.model()
    limits = [3 + 5 * (number % 4) for number in range(len(prompts))]
    [found] = greedy(model, encoder, prompts, limits, batch=batch)
    wanted = [alone(model, encoder, *each) for each in zip(prompts, limits, strict=True)]
    assert found == wanted
    lengths = [len(each) for each in found]
    assert any(length == limit for length, limit in zip(lengths, limits, strict=True))
    assert any(length < limit for length, limit in zip(lengths, limits, strict=True))


def test_padding_moves_no_positions(encoder, prompts):
    config = transformers.GPT2Config(
        vocab_size=len(fictional.tokenizer()), n_positions=64, n_embd=32, n_layer=2, n_head=2,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    [found] = greedy(model, encoder, prompts, [9] * len(prompts))
    assert found == [alone(model, encoder, prompt, 9) for prompt in prompts]


def test_candidates_side_by_side_answer_as_each_does_with_peft(encoder, prompts, tmp_path):
    model, limits = fictional.model(), [12] * len(prompts)
    with attached(model, 3, LORA) as adapters:
        fictional.stir(adapters)
        found = greedy(model, encoder, prompts, limits, copies=3, batch=5)
        states = adapters.states()
    assert len({tuple(own) for own in found}) == 3
    for own, state in zip(found, states, strict=True):
        save(state, LORA, model, "fictional", tmp_path)
        loaded = peft.PeftModel.from_pretrained(fictional.model(), tmp_path).eval()
        assert own == [alone(loaded, encoder, prompt, 12) for prompt in prompts]


def test_a_candidate_that_is_destroyed_says_nothing_and_leaves_the_others_alone(encoder, prompts):
    model, limits = fictional.model(), [12] * len(prompts)
    with attached(model, 3, LORA) as adapters:
        fictional.stir(adapters)
        before = greedy(model, encoder, prompts, limits, copies=3)
        with torch.no_grad():
            next(iter(adapters.layers.values())).b[1] = float("nan")
        after = greedy(model, encoder, prompts, limits, copies=3)
    assert after[1] == [()] * len(prompts)
    assert (after[0], after[2]) == (before[0], before[2])


def test_without_prompts_or_room_nothing_is_said(encoder, prompts):
    assert greedy(fictional.model(), encoder, [], [], copies=2) == [[], []]
    assert greedy(fictional.model(), encoder, prompts[:2], [0, 0]) == [[(), ()]]
