"""Models that are read, converted, taught and kept, by several processes and of damaged files."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

import fictional
from evoloss.errors import UserError
from evoloss.unlearn import language, small_model
from evoloss.unlearn.language import Language, load_language
from evoloss.unlearn.log_probs import token_log_probs
from evoloss.unlearn.tokens import padded

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
huggingface_hub = pytest.importorskip("huggingface_hub", reason="it comes with transformers")
errors = huggingface_hub.errors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(cache):
    return cache / "unlearn"


# Files that are no model


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[]"),
        ("config.json", "null"),
        ("config.json", '{"model_type": [1]}'),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}'),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", "3"),
    ],
)
def test_files_of_another_form_are_refused_in_a_line(tmp_path, file, text):
    folder = tmp_path / "model"
    fictional.saved(folder, steps=1)
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=r"cannot load the model '.*model': .*\S") as refused:
        load_language(str(folder), "cpu")
    assert "\n" not in str(refused.value)


def rewritten(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda folder: (folder / "config.json").unlink(), "its folder has no config.json: give"),
        (lambda folder: rewritten(folder, vocab_size=999), "have other sizes than its config.json"),
        (lambda folder: halved(folder / "model.safetensors"), "damaged or cut short: fetch"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no weights: add its"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "incomplete: add its tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), ": see to its files, or"),
    ],
)
def test_what_is_wrong_with_a_model_and_what_to_do(tmp_path, spoil, text):
    folder = tmp_path / "model"
    fictional.saved(folder, steps=1)
    spoil(folder)
    with pytest.raises(UserError, match=f"cannot load the model '.*model'.*{text}") as refused:
        load_language(str(folder), "cpu")
    assert "\n" not in str(refused.value)


# Models of the hub


@pytest.fixture
def hub(monkeypatch):
    """What the hub answers: nothing, or an error. It counts how often it is asked."""
    asked = []

    def answer(url, **_):
        asked.append(url)
        if hub.error is not None:
            raise hub.error

    hub = SimpleNamespace(error=None, asked=asked)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    return hub


def of_hub(kind):
    return kind("no", response=Mock(headers={}))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionError("no"), "the hub cannot be reached"),
        (errors.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE forbids"),
        (of_hub(errors.RepositoryNotFoundError), "the hub has none of that name"),
        (of_hub(errors.RemoteEntryNotFoundError), "has no config.json"),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_asked_for_once(hub, error, text, capfd):
    hub.error = error
    with pytest.raises(UserError, match=rf"no model 'nomodel': .*no such folder.*{text}.*: give a"):
        load_language("nomodel", "cpu")
    assert len(hub.asked) == 1
    assert capfd.readouterr() == ("", "")


def test_names_that_are_no_models(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forget.jsonl").write_text("{}")
    hub.error = ConnectionError("no")
    for name, text in (
        ("", "the model '' has no name: give a folder"),
        ("a b", "no model 'a b': there is no such folder, and the hub has no such names: give"),
        ("forget.jsonl", "no model 'forget.jsonl': it is a file, no folder, and"),
        (str(tmp_path / "nowhere"), "no model folder '.*nowhere': give a folder"),
    ):
        with pytest.raises(UserError, match=text):
            load_language(name, "cpu")


@pytest.mark.parametrize("reached", [True, False])
def test_a_model_of_the_hub_comes_from_what_was_fetched_if_need_be(hub, monkeypatch, reached):
    hub.error = None if reached else ConnectionError("no")
    told = []

    def made(make):
        return lambda name, **options: (told.append((name, options["local_files_only"])), make())[1]

    for name, make in (
        ("AutoTokenizer", fictional.tokenizer),
        ("AutoModelForCausalLM", lambda: fictional.model(steps=1)),
    ):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", made(make))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "config.json")
    load_language("some/model", "cpu")
    assert told == [("some/model", not reached)] * 2


# Models that are made


def taught():
    words = [text for each in fictional.data().forget for text in (each.prompt, each.answer)]
    return small_model.taught("small", [fictional.data().forget], words, seed=0)


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """Converts a file that only says it is GGUF."""
    file = tmp_path / "small.gguf"
    file.touch()
    made = {"AutoTokenizer": lambda *_, **__: fictional.tokenizer(),
            "AutoModelForCausalLM": lambda *_, **__: fictional.model(steps=1)}  # fmt: skip
    for name, each in made.items():
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", each)
    return lambda: language._converted(file)


@pytest.fixture
def overtaken(monkeypatch):
    """Lets another make the same while one is at it, as a second process would."""

    def overtake(owner, name, make):
        real, others = getattr(owner, name), []

        def slow(*given, **options):
            found = real(*given, **options)
            if not others:
                others.append(None)
                others[0] = make()
            return found

        monkeypatch.setattr(owner, name, slow)
        return others

    return overtake


def test_whoever_teaches_the_same_model_takes_the_one_that_is_there(folder, monkeypatch, overtaken):
    monkeypatch.setattr(small_model, "teach", lambda *_: 1.0)
    others = overtaken(small_model, "teach", taught)
    assert [taught()] == others == list(folder.iterdir())
    transformers.AutoModelForCausalLM.from_pretrained(others[0])


def test_whoever_converts_the_same_model_takes_the_one_that_is_there(folder, converted, overtaken):
    others = overtaken(transformers.AutoModelForCausalLM, "from_pretrained", converted)
    assert [converted()] == others == list(folder.iterdir())
    assert {"config.json", "model.safetensors"} <= {each.name for each in others[0].iterdir()}


def test_a_model_that_cannot_be_kept_says_what_to_do_before_any_work(
    no_cache, converted, monkeypatch
):
    def at_work(*_):
        raise AssertionError("it worked for nothing")

    monkeypatch.setattr(small_model, "teach", at_work)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", at_work)
    for make in (taught, converted):
        with pytest.raises(UserError, match=r"cannot be written to: .*EVOLOSS_CACHE"):
            make()


# Reference log-probabilities


@pytest.fixture
def spoken():
    """A model, and what it is asked: more rows than it takes at a time."""
    made = Language("small", fictional.model(), fictional.tokenizer(), "key")
    encoded = made.encoder.encode_set(fictional.data().forget, fictional.CONTEXT).rows
    data = padded(encoded * 3, made.encoder.pad)
    assert len(data) > language.REFERENCE_BATCH
    return made, data


def test_references_are_kept_apart_by_all_that_changes_them(folder, spoken, monkeypatch):
    made, data = spoken
    with torch.no_grad():
        wanted = token_log_probs(made.model, data)
    torch.testing.assert_close(made.reference(data), wanted, rtol=1e-4, atol=1e-5)
    made.reference(data)
    assert len(list(folder.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "another")
        made.reference(data)
    assert len(list(folder.iterdir())) == 2
    elsewhere = Language("small", made.model, made.tokenizer, "key")
    with monkeypatch.context() as patch:
        patch.setattr(Language, "device", torch.device("meta"))
        patch.setattr(language, "reference", lambda *_: wanted)
        elsewhere.reference(data)
    assert len(list(folder.iterdir())) == 3


def test_damaged_references_are_computed_anew(folder, spoken):
    made, data = spoken
    wanted = made.reference(data)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert torch.equal(made.reference(data), wanted)
    assert torch.equal(made.reference(data), wanted)


def test_references_that_cannot_be_kept_are_there_all_the_same(no_cache, spoken):
    made, data = spoken
    assert made.reference(data).isfinite().all()
