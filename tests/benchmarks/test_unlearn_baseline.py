"""The plain procedure for unlearning losses is right: it trains and measures what evoloss does."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evoloss.discovery.candidate import Candidate
from evoloss.lang.export.batch_source import batch_source
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS
from evoloss.lang.zoo import loss
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.language import quiet
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.settings import unlearn_settings

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("peft", reason="peft is not installed")
import fictional

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def _script(name):
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


baseline = _script("unlearn_baseline")
speed = _script("unlearn_speed")
RATE = 2.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folders = {"whole": ("forget", "retain"), "twin": ("retain",)}
    for name, known in folders.items():
        folders[name] = tmp_path_factory.mktemp(name)
        with quiet():
            fictional.model(known=known).save_pretrained(folders[name])
            fictional.tokenizer().save_pretrained(folders[name])
    data = replace(fictional.data(), probes={}, choices={})
    problem = Problem(data, str(folders["whole"]), str(folders["twin"]), None)
    return Bench(problem, unlearn_settings(epochs=3, batch=4, lr=5e-3, rank=4, context=64))


@pytest.fixture(scope="module")
def job(bench, tmp_path_factory):
    questions = tmp_path_factory.mktemp("job") / "questions.json"
    return speed.job_of(bench, bench.searching, questions)


@pytest.fixture(scope="module")
def model(job):
    with quiet():
        return baseline.AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32).eval()


def values_of(job, model):
    questions = json.loads(job.questions.read_text())
    with quiet():
        return baseline.measured(model, fictional.tokenizer(), questions)


def test_it_measures_what_evoloss_measures(bench, job, model):
    wanted = bench.searching.original.values
    found = values_of(job, model)
    assert len(wanted) > 14
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-5)


def merged(adapted):
    """As it comes back from the disk: peft has frozen the weights."""
    return adapted.merge_and_unload().requires_grad_(True).eval()


@pytest.mark.parametrize("name", ["grad-diff", "npo", "wga"])
def test_a_loss_trains_the_same_adapter_to_the_same_metrics(bench, job, name):
    trials = Unlearning(bench).trials(bench.searching, [loss(name)], [3], [RATE * 5e-3])
    [tried] = trials.run(bench.start)
    signature = UNLEARNING_TOKENS if name == "wga" else UNLEARNING
    with quiet():
        fresh = baseline.AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
        adapted = baseline.with_lora(fresh, job)
    objective = trials.here().objective
    order = objective.forget, objective.retain
    source = batch_source(loss(name), signature)
    baseline.train(adapted, baseline.defined(source), job, order, RATE * 5e-3)
    weights = dict(adapted.named_parameters())
    for key, wanted in tried.weights.items():
        moved = (wanted - bench.start.weights[key]).abs().max()
        found = weights[key.replace(".weight", ".default.weight")].detach()
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * float(moved))
        assert moved > 1e-3
    found = values_of(job, merged(adapted))
    assert found["forget_prob"] < 0.9 * bench.searching.original.values["forget_prob"]
    assert {name: found[name] for name in tried.measured.values} == pytest.approx(
        tried.measured.values, abs=0.01
    )


def test_a_loss_that_is_not_finite_leaves_the_adapter_as_it_was(bench, job, model):
    source = "def loss_fn_1(log_probs_forget):\n    return log_probs_forget.mean() / 0.0"
    with quiet():
        fresh = baseline.AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
        adapted = baseline.with_lora(fresh, job)
    order = (torch.arange(4)[None], torch.arange(4)[None])
    baseline.train(adapted, baseline.defined(source), job, order, 1e-3)
    assert values_of(job, merged(adapted)) == pytest.approx(values_of(job, model))


def test_a_destroyed_model_has_no_values(job):
    broken = fictional.model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    assert values_of(job, broken.eval()) is None


@pytest.mark.slow
def test_in_a_process_of_its_own_it_finds_the_same(bench, job):
    arena = Unlearning(bench)
    candidate = Candidate(0, 0, 0, "known loss", (), loss("npo"), "npo", epochs=2, rate=RATE)
    [wanted] = arena.score([candidate], False, lambda share: None)
    with quiet():
        found = speed.plain(arena, job, candidate)
    assert found.values["balance"] == pytest.approx(-wanted.error, abs=0.01)
    assert set(found.seconds) == {"reload", "train", "merge and save", "new process", "evaluate"}
