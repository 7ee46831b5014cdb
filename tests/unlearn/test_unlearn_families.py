"""Models whose layers have other names than Llama's, against `peft` and plain autograd."""

import json
import warnings

import pytest
import torch

from evoloss.errors import UserError
from evoloss.unlearn.adapters import LoraSettings, attached, save
from evoloss.unlearn.answers import gradient_norms
from evoloss.unlearn.finish import conclude
from evoloss.unlearn.generation import greedy
from evoloss.unlearn.layers import linear_layers
from evoloss.unlearn.log_probs import mean_log_probs
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.search import search
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.tokens import Encoded, Encoder
from tiny_llama import sequences

peft = pytest.importorskip("peft", reason="peft is not installed")
import fictional  # noqa: E402
from families import FAMILIES, model_of  # noqa: E402

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LORA = LoraSettings(rank=2, alpha=8.0)


def adapted_by_peft(family):
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GPT-2's weights are transposed
        adapted = peft.get_peft_model(model_of(family), config)
    layer = peft.tuners.lora.LoraLayer
    names = (name for name, each in adapted.named_modules() if isinstance(each, layer))
    return {name.removeprefix("base_model.model.") for name in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_all_linear_layers_loads_with_peft_alone(family, tmp_path):
    model, data = model_of(family), sequences(3, 4)
    with torch.no_grad():
        before = mean_log_probs(model, data)[0]
    with attached(model, 2, LORA) as adapters, torch.no_grad():
        fictional.stir(adapters, size=0.2)
        assert adapters.layers.keys() == adapted_by_peft(family)
        found = mean_log_probs(model, data, 2)
        states = adapters.states()
    for own, state in zip(found, states, strict=True):
        assert (own - before).abs().max() > 1e-3
        save(state, LORA, model, family, tmp_path)
        loaded = peft.PeftModel.from_pretrained(model_of(family), tmp_path).eval()
        with torch.no_grad():
            alone = mean_log_probs(loaded, data)[0]
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(mean_log_probs(model, data)[0], before)


def test_layers_of_a_llama_are_in_the_order_that_seeds_count_on():
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip
    wanted = [f"model.layers.{block}.{part}" for block in (0, 1) for part in parts]
    assert list(linear_layers(model_of("Llama"))) == wanted


@pytest.mark.parametrize("family", ["GPT2", "OPT", "GPTNeoX"])
def test_gradient_norms_are_those_of_all_linear_layers(family):
    model, data = model_of(family), sequences(3, 4)
    lengths = data.attention.sum(1).tolist()
    rows = [
        Encoded(tuple(ids[:length]), 4, False, place)
        for place, (ids, length) in enumerate(zip(data.tokens.tolist(), lengths, strict=True))
    ]
    layers = [model.get_submodule(name) for name in adapted_by_peft(family)]
    [found] = gradient_norms(model, rows, pad=0)
    for row in rows:
        logs = model(input_ids=torch.tensor([row.ids])).logits[0, 3:-1].log_softmax(-1)
        mean = logs[range(len(row.ids) - 4), row.ids[4:]].mean()
        wanted = torch.autograd.grad(mean, [each.weight for each in layers])
        assert found[row] == pytest.approx(float(torch.stack([g.norm() for g in wanted]).mean()))


def test_the_layers_can_be_named(tmp_path):
    lora = unlearn_settings(rank=2, targets="c_attn, mlp.c_proj").lora
    model = model_of("GPT2")
    with attached(model, 1, lora) as adapters:
        names = [f"transformer.h.{block}.{part}" for block in (0, 1)
                 for part in ("attn.c_attn", "mlp.c_proj")]  # fmt: skip
        assert list(adapters.layers) == names
        [state] = adapters.states()
    save(state, lora, model, "GPT2", tmp_path)
    loaded = peft.PeftModel.from_pretrained(model_of("GPT2"), tmp_path).named_modules()
    layer = peft.tuners.lora.LoraLayer
    assert [name.removeprefix("base_model.model.") for name, each in loaded
            if isinstance(each, layer)] == names  # fmt: skip


@pytest.mark.parametrize("targets", ["q_proj", "c_attn,q_proj", "lm_head", "wte"])
def test_a_name_that_no_layer_has_is_told_with_those_that_there_are(targets):
    name = targets.rpartition(",")[2]
    lora = unlearn_settings(targets=targets).lora
    with (
        pytest.raises(
            UserError, match=f"'{name}' besides its head: there are c_attn, c_proj, c_fc"
        ),
        attached(model_of("GPT2"), 1, lora),
    ):
        pass


def test_targets_have_to_be_names():
    with pytest.raises(UserError, match="targets is 'c_attn,': give names"):
        unlearn_settings(targets="c_attn,")
    with pytest.raises(UserError, match="targets is '': give names"):
        unlearn_settings(targets="")


@pytest.mark.parametrize("family", ["Bloom", "Mpt", "OPT"])
def test_answers_are_those_of_transformers(family):
    words = fictional.tokenizer()
    model = model_of(family, len(words), init_std=0.5, initializer_range=0.5)
    encoder = Encoder(words)
    prompts = [encoder.prompt(each) for each in fictional.data().forget.rows[:3]]
    prompts.append(prompts[0][:4])
    found = greedy(model, encoder, prompts, [6] * 4)[0]
    for answer, prompt in zip(found, prompts, strict=True):
        tokens = torch.tensor([prompt])
        wanted = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=6,
            pad_token_id=encoder.pad,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert [*answer, encoder.end][: len(wanted)] == wanted


@pytest.mark.usefixtures("one_thread", "own_cache")
def test_a_gpt2_is_searched_on_and_its_adapter_saved(unlearning_folder, tmp_path):
    words = fictional.tokenizer()
    model = fictional.teach(model_of("GPT2", len(words), n_embd=32, n_positions=128), 25)
    for each in (model, words):
        each.save_pretrained(tmp_path / "model")
    files = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    result, bench = search(
        load_problem(str(tmp_path / "model"), **files),
        population=1, generations=1, epochs=1, batch=8, lr=4e-3, rank=2, texts=1, finalists=0,
        together=1, test_share=0.2, context=32,
    )  # fmt: skip
    record = conclude(bench, result.best, [], 1, 1, tmp_path / "adapter")
    assert record["rows"][0]["values"][0]["forgetting"] > 0
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert about["fan_in_fan_out"] is True
    assert about["target_modules"] == ["c_attn", "c_fc", "c_proj"]
