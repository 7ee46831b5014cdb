"""Log-probabilities of answers against plain PyTorch, on models whose heads differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evoloss.unlearn.log_probs import Sequences, logits_at, token_log_probs

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

VOCABULARY, WIDTH = 23, 8
SMALL: dict[str, dict[str, Any]] = {
    "Llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "tie_word_embeddings": True},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "Gemma2": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
               "num_attention_heads": 2, "num_key_value_heads": 2,
               "final_logit_softcapping": 0.5},
}  # fmt: skip


class Headless(nn.Module):
    """A model that does not tell which of its layers is the head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = [model]  # a list hides it from torch

    def forward(self, **inputs: Any) -> Any:
        return self.inner[0](**inputs)


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **SMALL[kind]
    )
    made: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return made.train(False)


def sequences() -> Sequences:
    drawn = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (3, WIDTH), generator=drawn)
    attention = torch.ones_like(tokens)
    attention[1, 6:] = 0
    answer = torch.zeros_like(tokens)
    for row, (start, end) in enumerate(((3, 8), (2, 6), (1, 2))):
        answer[row, start:end] = 1
    return Sequences(tokens, attention, answer)


def plainly(model: nn.Module, data: Sequences) -> Tensor:
    """Row by row, without padding, over the whole vocabulary."""
    found = torch.zeros(data.tokens.shape)
    for row in range(len(data)):
        length = int(data.attention[row].sum())
        ids = data.tokens[row, :length]
        logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for at in range(1, length):
            if data.answer[row, at]:
                found[row, at] = logs[at - 1, ids[at]]
    return found


@pytest.mark.parametrize("kind", list(SMALL))
@pytest.mark.parametrize("hidden", [False, True], ids=["head", "no head"])
def test_they_are_those_of_each_row_alone(kind: str, hidden: bool) -> None:
    model, data = model_of(kind), sequences()
    asked = Headless(model) if hidden else model
    with torch.no_grad():
        found = token_log_probs(asked, data, copies=2)
        torch.testing.assert_close(found, plainly(model, data).repeat(2, 1))


def test_their_gradients_are_those_of_all_logits() -> None:
    model, data = model_of("Llama"), sequences()
    weights = list(model.parameters())
    found = torch.autograd.grad(token_log_probs(model, data).sum(), weights)
    wanted = torch.autograd.grad(plainly(model, data).sum(), weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_head_sees_the_asked_places_alone_and_is_left_as_it_was() -> None:
    model, data = model_of("Llama"), sequences()
    seen: list[tuple[int, ...]] = []
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_hook(lambda _, given, out: seen.append(tuple(out.shape)))
    places = (torch.tensor([0, 2, 2]), torch.tensor([4, 0, 0]))
    some = logits_at(model, places, input_ids=data.tokens)
    whole = model(input_ids=data.tokens).logits
    handle.remove()
    assert seen == [(1, 3, VOCABULARY), (3, WIDTH, VOCABULARY)]
    torch.testing.assert_close(some, whole[places])


def test_a_model_that_breaks_down_keeps_no_hook() -> None:
    model = model_of("Llama")
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    with pytest.raises(IndexError):
        logits_at(
            model, (torch.tensor([0]), torch.tensor([0])), input_ids=torch.full((1, 2), 10**6)
        )
    assert not head._forward_pre_hooks
