"""The model's own weights in bfloat16: what has them, what keeps the choice, what they change."""

import pytest
import torch
from scipy.stats import spearmanr

from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.store import Store
from evoloss.unlearn.adapters import attached
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.search import reopened, search
from evoloss.unlearn.settings import unlearn_settings

pytest.importorskip("transformers", reason="transformers is not installed")

SETTINGS = {"epochs": 3, "batch": 3, "lr": 4e-3, "rank": 2, "texts": 1, "together": 8}
RATES = (0.25, 1.0)
"""Each known loss also at a part of its learning rate, for there are few of them."""


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_a_cache_of_its_own(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def problem(unlearning_folder):
    sets = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    return load_problem(str(unlearning_folder / "model"), **sets)


def bench_of(problem, **settings):
    return Bench(problem, unlearn_settings(**{**SETTINGS, **settings}), device="cpu")


@pytest.mark.parametrize(
    ("given", "wanted"), [(None, torch.float32), ("float32", torch.float32),
                          ("bf16", torch.bfloat16)]
)  # fmt: skip
def test_weights_are_as_asked_for_and_adapters_in_single_precision(problem, given, wanted):
    bench = bench_of(problem, precision=given)
    assert {each.dtype for each in bench.language.model.parameters()} == {wanted}
    with attached(bench.language.model, 2, bench.settings.lora) as adapters:
        assert {each.dtype for each in adapters.parameters} == {torch.float32}
    assert bench.settings.precision == (given or "float32")


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(UserError, match="unknown precision 'fp8'"):
        unlearn_settings(precision="fp8")


def test_a_run_keeps_the_precision_that_it_was_not_told(problem, tmp_path):
    small = {**SETTINGS, "epochs": 1, "population": 1, "generations": 1, "finalists": 0}
    search(problem, out=tmp_path / "run", **small)
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.settings["precision"] == "float32"
        assert reopened(store, problem).settings.precision == "float32"


def balances(bench):
    """What known losses come to at some learning rates."""
    arena, lr = Unlearning(bench), bench.settings.lr
    losses = [zoo.loss(name) for name in zoo.names("unlearning")]
    pairs = [(loss, rate * lr) for loss in losses for rate in RATES]
    chosen, rates = zip(*pairs, strict=True)
    epochs = [bench.settings.epochs] * len(pairs)
    done = arena.trials(bench.searching, chosen, epochs, rates).run(bench.start)
    return [each.score for each in done]


@pytest.mark.slow
def test_known_losses_rank_alike_in_both(problem):
    whole, half = (balances(bench_of(problem, precision=each)) for each in ("float32", "bf16"))
    assert whole != half
    assert None not in (*whole, *half)
    assert spearmanr(whole, half).statistic > 0.9
