"""Log-probabilities of answers against plain PyTorch, on models whose heads differ."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evoloss.unlearn.log_probs import Sequences, logits_at, rows_at_once, token_log_probs

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


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_rows_in_parts_have_the_gradients_of_a_loss_of_them_all(at_once: int) -> None:
    model, data = model_of("Llama"), sequences()
    weights = list(model.parameters())

    def loss(found: Tensor) -> Tensor:
        means = found.sum(1) / data.answer.sum(1)
        return means.sort().values[1].exp() + means.var() + found.flatten().quantile(0.3)

    with rows_at_once(at_once):
        found = token_log_probs(model, data)
    torch.testing.assert_close(found, plainly(model, data))
    wanted = torch.autograd.grad(loss(plainly(model, data)), weights)
    for one, other in zip(torch.autograd.grad(loss(found), weights), wanted, strict=True):
        torch.testing.assert_close(one, other)


class Held(TorchDispatchMode):
    """Counts the bytes that tensors made within it hold, and the most that they have held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            storage = each.untyped_storage() if isinstance(each, Tensor) else None
            if storage is not None and storage._cdata not in self.alive:
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def freed(self, storage: int, size: int) -> None:
        self.alive.discard(storage)
        self.now -= size


def test_activations_are_those_of_one_part_at_a_time() -> None:
    model, data = model_of("Llama"), sequences()
    many = Sequences(*(each.repeat(8, 1) for each in (data.tokens, data.attention, data.answer)))
    held = {}
    for at_once in (None, 12, 6, 3):
        with rows_at_once(at_once), Held() as counted:
            found = token_log_probs(model, many)
            torch.autograd.grad(found.sum(), list(model.parameters()))
        held[at_once] = counted.most
    by_row = (held[12] - held[6]) / 6
    assert held[6] - held[3] == pytest.approx(3 * by_row, rel=0.1)
    assert held[None] - held[3] > 0.8 * 21 * by_row > 0


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
