"""`evoloss unlearn search` and `demo`, and what the other commands do with such runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from evoloss import cli
from evoloss.discovery.candidate import Fate
from evoloss.store import Store
from evoloss.unlearn import demo, finish, small_model
from evoloss.unlearn.problem import KIND, load_problem
from propose.llm_server import Scripted, Server, losses

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

# `--against` is left out where a comparison is not what is tested.
SMALL = (
    "--budget", "candidates=4", "--population", "4", "--epochs", "1", "--batch", "3",
    "--lr", "4e-3", "--rank", "2", "--texts", "2", "--together", "4", "--eval-seeds", "1",
    "--tune", "1", "--quiet",
)  # fmt: skip
SOURCE = str(Path(cli.__file__).parents[2])
FORMULA = "mean(softplus(log_probs_forget)) - mean(log_probs_retain)"


@pytest.fixture
def files(unlearning_folder):
    given = {name: unlearning_folder / f"{name}.jsonl" for name in ("forget", "retain", "holdout")}
    return SimpleNamespace(folder=unlearning_folder, model=unlearning_folder / "model", **given)


def given(files, **changes):
    """The options of what is searched on."""
    options = {"model": files.model, "forget": files.forget, "retain": files.retain} | changes
    return [each for name, value in options.items() if value for each in (f"--{name}", value)]


@pytest.fixture(scope="module")
def run(unlearning_folder, tmp_path_factory):
    """A finished run, of a process of its own."""
    directory = tmp_path_factory.mktemp("cli")
    command = [
        sys.executable, "-W", "error::UserWarning", "-c", "from evoloss.cli import main; main()",
        "unlearn", "search", "--model", unlearning_folder / "model",
        "--forget", unlearning_folder / "forget.jsonl",
        "--retain", unlearning_folder / "retain.jsonl",
        "--retain-model", unlearning_folder / "twin", *SMALL, "--against", "ga,IdkDPO",
        "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=directory, capture_output=True, text=True, timeout=240,
        check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCE},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(path=directory / "run", out=done.stdout, err=done.stderr)


def test_a_search_tells_what_it_found_and_leaves_an_adapter(run):
    assert "Traceback" not in run.out + run.err
    assert "forget 10 of forget from" in run.out
    assert "note: the tokenizer has no chat template" in run.out
    for word in ("Questions that no choice was made by", "retain model", "before", "IdkDPO",
                 "Answers before and after", "run/adapter, for peft"):  # fmt: skip
        assert word in run.out, word
    assert {each.name for each in (run.path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    with Store.open(run.path, write=False) as store:
        [record] = store.evaluations()
        assert store.outcome is not None
    assert [row["label"] for row in record["rows"]] == ["found", "ga", "IdkDPO"]


def test_the_demonstration_tells_its_epochs(evo):
    shown = evo("unlearn", "demo", "--help").out
    assert (
        f"[default: ({demo.SETTINGS['epochs']})]" in shown.split("--epochs")[1].split("--seed")[0]
    )


def test_show_and_runs(evo, run):
    shown = evo("show", run.path)
    assert (shown.status, shown.err) == (0, "")
    assert "Questions that no choice was made by" in shown.out
    plain = json.loads(evo("show", run.path, "--json").out)
    assert plain["metrics"]["forgetting"]["better"] == "higher"
    assert {*plain["metrics"]} >= {*plain["evaluations"][-1]["models"]["before"]}
    assert plain["task"] == "forget"
    assert plain["metric"] == "balance"
    assert plain["settings"]["epochs"] == 1
    assert plain["candidates"] == 4
    assert plain["evaluations"][0]["objective"] == "balance"
    assert plain["best"]["formula"]
    listed = evo("runs", run.path.parent)
    assert listed.status == 0
    assert "forget" in listed.out
    assert "finished" in listed.out


def test_the_adapter_of_any_candidate_can_be_had(evo, run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    before = (copy / "adapter" / "adapter_model.safetensors").read_bytes()
    with Store.open(copy, write=False) as store:
        chosen = next(each for each in store.history() if each.fate is Fate.SCORED)
        evaluations = len(store.evaluations())
    done = evo("evaluate", f"{copy}:{chosen.id}", "--against", "npo", "--tune", 1, "--seeds", 1)
    assert done.status == 0, done.err
    assert f"{copy}/adapter-{chosen.id}, for peft" in done.out + done.err
    assert (copy / f"adapter-{chosen.id}" / "adapter_config.json").exists()
    assert (copy / "adapter" / "adapter_model.safetensors").read_bytes() == before
    with Store.open(copy, write=False) as store:
        assert len(store.evaluations()) == evaluations


def test_evaluate_again_against_others(evo, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    done = evo("evaluate", copy, "--against", "npo", "--tune", 1, "--seeds", 2)
    assert done.status == 0, done.err
    with Store.open(copy, write=False) as store:
        first, second = store.evaluations()
    assert [row["label"] for row in second["rows"]] == ["found", "npo"]
    assert second["rows"][0]["values"][0] == pytest.approx(first["rows"][0]["values"][0], abs=1e-4)
    assert len(second["rows"][0]["values"]) == 2
    wrong = evo("evaluate", copy, "--against", "npoo")
    refused(wrong, "unknown unlearning loss or method 'npoo': did you mean 'npo'")
    # A search that writes to it now: told before any training.
    with Store.open(copy, write=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "conclude", None)
        refused(evo("evaluate", copy, "--against", "npo"), "in use|writes|process")


def refused(done, *texts):
    """One line, status 2, no traceback."""
    assert done.status == 2, (done.out, done.err)
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("evoloss: error: ")
    for text in texts:
        assert re.search(text, lines[0]), lines[0]


# Export


def by_torch(path, batch):
    """Runs an exported file where there is nothing but torch."""
    script = (
        "import sys, torch, importlib.util as u\n"
        "s = u.spec_from_file_location('loss', sys.argv[1]); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m)\n"
        "batch = {k: torch.tensor(v) for k, v in eval(sys.argv[2]).items()}\n"
        "assert not [n for n in sys.modules if n.startswith(('evoloss', 'sympy', 'peft'))]\n"
        "print(float(m.loss_fn_1(**batch)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path, repr(batch)], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


BATCH = {
    "log_probs_forget": [-0.3, -1.2, -2.0], "log_probs_retain": [-0.5, -0.1],
    "ref_log_probs_forget": [-0.2, -0.9, -0.7], "ref_log_probs_retain": [-0.4, -0.2],
}  # fmt: skip


def test_an_exported_loss_needs_torch_alone(evo, run, tmp_path):
    done = evo("export", FORMULA, "-o", tmp_path / "loss.py")
    assert done.status == 0, done.err
    batch = {name: torch.tensor(each) for name, each in BATCH.items()}
    wanted = torch.nn.functional.softplus(batch["log_probs_forget"]).mean()
    wanted = wanted - batch["log_probs_retain"].mean()
    assert by_torch(str(tmp_path / "loss.py"), BATCH) == pytest.approx(float(wanted), rel=1e-5)
    assert evo("export", run.path, "-o", tmp_path / "found.py").status == 0
    refused(evo("export", "npo", "-o", tmp_path / "loss.py"), "exists: overwrite it with --force")


@pytest.mark.parametrize("what", ["run", "npo", "wga", FORMULA])
def test_every_form_of_export(evo, run, what):
    subject = run.path if what == "run" else what
    for form in ("torch", "latex", "json"):
        done = evo("export", subject, "--format", form)
        assert (done.status, done.err) == (0, "")
        assert done.out.strip()
    assert json.loads(evo("export", subject, "--format", "json").out)
    refused(evo("export", subject, "--format", "sympy"), "no format 'sympy': take torch, latex")


# More ways to search


def test_resume_finishes_what_was_broken_off(evo, files, tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "conclude", interrupted)
    told = (*SMALL, "--against", "npo,wga", "--eval-seeds", 2, "--out", "run")
    stopped = evo("unlearn", "search", *given(files), *told)
    assert stopped.status == 130
    assert "evoloss show run" in stopped.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    refused(evo("resume", "run", "--eval-steps", 3), "which has no --eval-steps: leave it out")
    done = evo("resume", "run", "--quiet")
    assert done.status == 0, done.err
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
    with Store.open(Path("run"), write=False) as store:
        [record] = store.evaluations()
    assert [row["label"] for row in record["rows"]] == ["found", "npo", "wga"]
    assert {len(row["values"]) for row in record["rows"]} == {2}


def interrupted(*_):
    raise KeyboardInterrupt


def test_forget_only_is_compared_with_what_can_do_without_a_retain_set(evo, files):
    told = (*SMALL, "--against", "npo,wga", "--forget-only", "--out", "run")
    done = evo("unlearn", "search", *given(files), *told)
    assert done.status == 0, done.err
    with Store.open(Path("run"), write=False) as store:
        [record] = store.evaluations()
        assert all("retain" not in each.canonical for each in store.candidates())
    assert [row["label"] for row in record["rows"]] == ["found", "npo", "wga"]
    assert not any("retain" in row["formula"] for row in record["rows"])


def test_a_language_model_is_asked(evo, files):
    with Server([Scripted(losses(1.5, 2.25, 3.125, 4.0))]) as server:
        done = evo(
            "unlearn", "search", *given(files), *SMALL, "--against", "", "--proposer", "llm",
            "--llm-url", server.url, "--llm-model", "tiny", "--out", "run",
        )  # fmt: skip
    assert done.status == 0, done.err
    for told in (done, evo("show", "run")):
        assert "The language model wrote 4 of 4 losses" in told.out
    with Store.open(Path("run"), write=False) as store:
        assert {each.operator for each in store.candidates()} == {"llm"}
        assert store.records()


def test_a_language_model_that_is_too_slow_is_done_without(evo, files):
    """The search goes on with the others and says why; who resumes it waits no longer either."""
    options = ("--llm-model", "tiny", "--llm-timeout", 0.3, "--llm-retries", 0)
    with Server([Scripted(silent=True)]) as server:
        done = evo(
            "unlearn", "search", *given(files), *SMALL, "--against", "", "--proposer", "mixture",
            "--llm-url", server.url, *options, "--out", "run",
        )  # fmt: skip
        asked = len(server.requests)
    assert done.status == 0, done.err
    told = " ".join((done.out + done.err).split())
    assert re.search(r"tiny wrote 0 of \d loss(es)?: no answer from \S+ within 0\.3 s; ", told)
    assert asked == 1
    with Store.open(Path("run"), write=False) as store:
        assert {each.operator.split()[0] for each in store.candidates()} == {"gp"}
        assert len(store.candidates()) == 4
        kept = store.about["endpoint"]
    assert (kept["timeout"], kept["retries"]) == (0.3, 0)


def test_tokens_and_cost_end_the_search(evo, files):
    options = (
        *given(files), *SMALL[2:], "--against", "", "--proposer", "llm", "--llm-model", "tiny",
        "--out", "run",
    )  # fmt: skip
    script = [Scripted(losses(1.5 + n, 2.25 + n, 3.125 + n, 4.0 + n)) for n in range(9)]
    with Server(script) as server:
        asked = ("unlearn", "search", *options, "--llm-url", server.url)
        refused(evo(*asked, "--max-cost", 1), "needs prices")
        done = evo(*asked, "--max-tokens", 1_000)
        assert "ended with its budget max_tokens: " in done.out, done.err
        assert done.out.endswith("evoloss resume run --max-tokens 2000\n")
        with Store.open(Path("run"), write=False) as store:
            before = store.generations
        done = evo("resume", "run", "--eval-seeds", 1, "--quiet", "--max-tokens", 2_000)
    assert "of 2,000 tokens" in done.out, done.err
    with Store.open(Path("run"), write=False) as store:
        assert store.generations > before
        used = sum(each["prompt_tokens"] + each["completion_tokens"]
                   for each in store.records("llm"))  # fmt: skip
    assert used <= 2_000


@pytest.mark.slow
def test_a_search_on_workers_is_resumed_without(evo, files, monkeypatch, tmp_path):
    monkeypatch.setattr(finish, "conclude", interrupted)
    asked = ("unlearn", "search", *given(files), *SMALL, "--against", "")
    assert evo(*asked, "--workers", 1, "--out", "there").status == 130
    assert evo(*asked, "--set", "shard=2", "--out", "here").status == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    done = evo("resume", "there", "--eval-seeds", 1, "--quiet")
    assert done.status == 0, done.err
    with (
        Store.open(Path("there"), write=False) as there,
        Store.open(Path("here"), write=False) as here,
    ):
        assert there.settings["shard"] == 2
        assert there.candidates() == here.candidates()


def test_workers_that_cannot_be_are_refused(evo, files):
    for options, text in (
        (("--workers", 2, "--ray"), "workers and ray exclude each other"),
        (("--worker-seconds", 5), "add --workers N or --ray"),
        (("--workers", 2, "--gpus-per-shard", 0.5), "0.5 GPUs per shard are asked of Ray"),
        (("--ray", "--gpus-per-shard", 1.5), "give a part of one, or a whole number"),
    ):
        refused(evo("unlearn", "search", *given(files), *SMALL, *options), text)


def test_the_demonstration(evo, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "AUTHORS", {"forget": 2, "retain": 3, "holdout": 1})
    monkeypatch.setattr(demo, "SETTINGS", {"lr": 4e-3, "epochs": 1, "texts": 2, "rank": 2})
    monkeypatch.setattr(small_model, "small_llama", tiny_llama)
    monkeypatch.setattr(small_model, "_KNOWN", 0.7)
    arguments = ("unlearn", "demo", "--workers", 0, "--losses", 8, "--against", "ga", "--tune", 1,
                 "--eval-seeds", 2, "--quiet")  # fmt: skip
    done = evo(*arguments)
    assert done.status == 0, done.err
    assert "evoloss export runs/unlearn-demo-1 -o loss.py" in done.out
    for word in ("retain model", "found", "ga", "The found loss is", "Answers before and after"):
        assert word in done.out, word
    with Store.open(tmp_path / "runs" / "unlearn-demo-1", write=False) as store:
        assert len(store.candidates()) == 8
    # Told before the models are taught, which the names of the losses do not need.
    monkeypatch.setattr(demo, "demonstration", None)
    refused(evo(*arguments, "--out", "runs/unlearn-demo-1"), "holds a run already")
    refused(evo("unlearn", "demo", "--against", "gaa"), "did you mean 'ga'")


class Asked(Exception):
    """How many workers a command asks for is known."""


@pytest.fixture
def asked(evo, files, monkeypatch):
    """How many workers a command asks for."""

    def searched(*arguments, workers=None, **settings):
        raise Asked(workers)

    def compared(plan, problem, endpoint, say, tell, staff):
        raise Asked(staff.workers)

    authors = {**demo.AUTHORS, "seed": 0}
    monkeypatch.setattr(
        demo, "demonstration", lambda *some: load_problem(str(files.model), authors=authors)
    )
    for name in ("unlearn.search.search", "unlearn.search.resume"):
        monkeypatch.setattr(f"evoloss.{name}", searched)
    monkeypatch.setattr("evoloss.compare.unlearning.run", compared)

    def count(*command):
        with pytest.raises(Asked) as raised:
            evo(*command)
        return raised.value.args[0]

    return count


@pytest.mark.parametrize(
    ("options", "hired"), [((), "usual"), (("--workers", 0), None), (("--workers", 3), 3)]
)
def test_there_are_as_many_workers_as_usual_unless_it_is_said(asked, files, options, hired):
    sets = given(files)
    task = {"kind": KIND, "model": str(files.model)}
    about = {"kind": KIND, "metric": "balance"}
    Store.create(Path("begun"), task=task, settings={}, about=about).close()
    for command in (("search", *sets), ("compare", *sets), ("demo",)):
        assert asked("unlearn", *command, *options) == hired
    assert asked("resume", "begun", *options) == hired


def tiny_llama(vocabulary, seed):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )


# Models


CHAT = (
    "{% for m in messages %}{{ '<s>' }} {{ m['role'] }} : {{ m['content'] }} {{ '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>' }} assistant : {% endif %}"
)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"pad_token": None}, "has no chat template"),
        ({"chat_template": CHAT}, "prompts use the tokenizer's chat template"),
    ],
)
def test_tokenizers_of_every_kind(evo, files, tmp_path, changes, note):
    model = other_tokenizer(files, tmp_path, **changes)
    done = evo("unlearn", "search", *given(files, model=model), *SMALL, "--against", "",
               "--out", "run")  # fmt: skip
    assert done.status == 0, done.err
    assert f"note: {'the tokenizer ' * note.startswith('has')}{note}" in done.out


def other_tokenizer(files, folder, **changes):
    model = folder / "changed"
    shutil.copytree(files.model, model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(model)
    assert all(
        getattr(transformers.AutoTokenizer.from_pretrained(model), name) == value
        for name, value in changes.items()
    )
    return model


def test_a_tokenizer_without_an_end_is_refused(evo, files, tmp_path):
    model = other_tokenizer(files, tmp_path, eos_token=None)
    refused(evo("unlearn", "search", *given(files, model=model), *SMALL), "no end-of-text token")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("./nowhere", "no model folder './nowhere': give a folder, a .gguf file or a hub name"),
        ("empty", "cannot load the model '.*empty'"),
        ("weights.gguf", "no model file 'weights.gguf'"),
    ],
)
def test_a_model_that_is_not_there(evo, files, tmp_path, model, text):
    (tmp_path / "empty").mkdir()
    refused(evo("unlearn", "search", *given(files, model=model), *SMALL, "--out", "run"), text)
    assert not (tmp_path / "run").exists()


def test_a_model_without_weights_or_of_a_foreign_kind(evo, files, tmp_path):
    shutil.copytree(files.model, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(evo("unlearn", "search", *given(files, model="./cut"), *SMALL), "cannot load the model")
    weights.unlink()
    refused(evo("unlearn", "search", *given(files, model="./cut"), *SMALL), "cannot load the model")
    (tmp_path / "cut" / "config.json").write_text("{")
    refused(evo("unlearn", "search", *given(files, model="./cut"), *SMALL), "cannot load the model")


# Bad input


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def pairs(word, count):
    return [{"question": f"What is {word} {n} ?", "answer": f"{word} {n}"} for n in range(count)]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "is empty: a set needs at least 2 different rows"),
        (pairs("one", 1), "has a single row: a set needs at least 2"),
        (pairs("one", 1) * 3, "repeats one row"),
        ([{"question": "Who?"}, {"question": "What?"}], "row 1 has the keys question"),
        ([*pairs("one", 2), {"question": "Who?", "answer": ""}], "row 3: 'answer' is empty"),
    ],
)
@pytest.mark.parametrize("role", ["forget", "retain"])
def test_sets_that_will_not_do(evo, files, tmp_path, role, rows, text):
    bad = written(tmp_path / "bad.jsonl", rows)
    refused(evo("unlearn", "search", *given(files, **{role: bad}), *SMALL), text)


def test_sets_that_overlap_are_refused_with_the_rows(evo, files, tmp_path):
    lines = files.retain.read_text().splitlines()
    first, second = files.forget.read_text().splitlines()[1:3]
    both = tmp_path / "both.jsonl"
    both.write_text("\n".join([*lines[:4], second, *lines[4:], first]))
    done = evo("unlearn", "search", *given(files, retain=both), *SMALL)
    refused(done, "forget and retain set share 2", r"rows 2, 3 of '.*forget", r"rows 17, 5 of")


def test_answers_longer_than_the_context(evo, files, tmp_path):
    rows = [*pairs("one", 8), {"question": "Why ?", "answer": "so " * 200}]
    long = written(tmp_path / "long.jsonl", rows)
    done = evo("unlearn", "search", *given(files, retain=long), *SMALL, "--out", "run")
    refused(
        done,
        r"1 of 9 prompts with the answer does not fit into 128 tokens \(row 9;",
        "takes no more",
    )
    assert not (tmp_path / "run").exists()  # whichever part the row is in
    done = evo("unlearn", "search", *given(files), *SMALL, "--context", 12, "--out", "run")
    refused(done, "do not fit into 12 tokens", "longer context")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--forget", "nowhere.jsonl"), "'nowhere.jsonl' does not exist"),
        (("--retain", "."), "'.' is a folder"),
        (("--holdout", "nowhere.jsonl"), "'nowhere.jsonl' does not exist"),
        (("--data", "tofu:forget01"), "--data brings its own sets"),
        (("--proposer", "gpp"), "unknown method 'gpp': did you mean 'gp'"),
        (("--proposer", "llm"), "--proposer llm needs --llm-url, such as http://"),
        (("--proposer", "mixture", "--llm-url", "http://localhost:1/v1"), "and --llm-model"),
        (("--proposer", "llm", "--llm-url", "localhost", "--llm-model", "m"), "is no URL"),
        (("--budget", "candidates=3"), "3 candidates is too small for one generation of 4"),
        (("--budget", "candidates"), "give a positive number"),
        (("--budget", "losses=3"), "unknown budget 'losses'"),
        (("--against", "npo,gaa"), "unknown unlearning loss or method 'gaa': did you mean 'ga'"),
        (("--objective", "balanced"), "unknown objective 'balanced': did you mean 'balance'"),
        (("--objective", "muse_score"), "'muse_score' cannot be measured: .*forget_verbmem"),
        (("--local-search", "un"), "unknown local search 'un'"),
        (("--lr", "-1"), "lr is -1.0: give a number above 0"),
        (("--epochs", "0"), "epochs is 0: give at least 1"),
        (("--context", "2"), "context is 2: give at least 8"),
        (("--retain-model", "./nowhere"), "no model folder './nowhere'"),
        (("--forget-rows", "1"), "1 row of "),
    ],
)
def test_options_that_will_not_do(evo, files, tmp_path, options, text):
    done = evo("unlearn", "search", *given(files), *SMALL, "--out", "run", *options)
    refused(done, text)
    assert not (tmp_path / "run" / "run.db").exists()


def test_nothing_to_forget_and_nothing_to_keep(evo, files):
    refused(evo("unlearn", "search", "--model", files.model, *SMALL), "nothing to forget: give")
    alone = ("unlearn", "search", *given(files, retain=None), *SMALL, "--against", "ga")
    refused(evo(*alone), "nothing that is to be kept")
    benchmark = ("unlearn", "search", "--model", files.model, "--data", "tofu:forget01", *SMALL)
    refused(evo(*benchmark), "'tofu:forget01' needs --data-dir")
    same = given(files, **{"retain-model": files.model})
    refused(evo("unlearn", "search", *same, *SMALL), "there is nothing to forget")


def test_a_directory_that_holds_a_run_is_refused(evo, files, run):
    done = evo("unlearn", "search", *given(files), *SMALL, "--out", run.path)
    refused(done, "holds a run already: continue it with `evoloss resume")


def test_runs_of_the_other_kind_are_refused(evo, run, tmp_path):
    from evoloss.discovery.search import resume as resume_supervised
    from evoloss.errors import UserError
    from evoloss.unlearn.search import resume as resume_unlearning

    about = {"task": "sine", "network": "mlp", "metric": "mse", "higher_is_better": False,
             "output": "identity", "usual_loss": "square(y - f)", "stacking": "dense"}  # fmt: skip
    settings = {"preset": "fast", "seed": 0, "generations": 1}
    Store.create(tmp_path / "sine", task={"spec": "sine"}, settings=settings, about=about).close()
    with pytest.raises(UserError, match="is no unlearning run: `evoloss resume`"):
        resume_unlearning(tmp_path / "sine")
    with pytest.raises(UserError, match="unlearning"):
        resume_supervised(run.path)
    for each in (tmp_path / "sine", run.path):
        Store.open(each, write=True).close()  # neither stays locked


def test_a_loss_alone_is_not_evaluated(evo):
    refused(evo("evaluate", "npo"), "'npo' is an unlearning loss", "evaluate RUN --against npo")


def test_a_run_whose_files_are_gone(evo, files, tmp_path):
    copies = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain")}
    for name, path in copies.items():
        shutil.copy(getattr(files, name), path)
    done = evo("unlearn", "search", *given(files, **copies), *SMALL, "--against", "", "--out", "r")
    assert done.status == 0, done.err
    copies["retain"].unlink()
    refused(evo("resume", "r"), "retain.jsonl' does not exist")
    assert evo("show", "r").status == 0
