"""What a search may look at, and what it leaves behind: finals, an adapter, an evaluation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fictional
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.result import FoundLoss
from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.lang.expr import inputs_of
from evoloss.store import Store
from evoloss.unlearn import bench as benches
from evoloss.unlearn import contenders, language
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.contenders import Effort, contender
from evoloss.unlearn.evaluate import evaluate
from evoloss.unlearn.finish import conclude, found_contender
from evoloss.unlearn.log_probs import mean_log_probs
from evoloss.unlearn.problem import Problem, load_problem
from evoloss.unlearn.search import reopened, search
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.trials import Tried

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

SETTINGS = {
    "population": 4, "generations": 1, "epochs": 2, "batch": 3, "lr": 4e-3, "rank": 2, "texts": 2,
    "finalists": 2, "final_seeds": 1, "final_rates": (1.0,), "together": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def problem(unlearning_folder):
    files = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    return load_problem(str(unlearning_folder / "model"), **files)


def bench_of(problem, **settings):
    return Bench(problem, unlearn_settings(**{**SETTINGS, **settings}))


def with_data(problem, **sets):
    return replace(problem, data=replace(problem.data, **sets), source=None)


# What is looked at


class Secret:
    def __getattr__(self, name):
        raise AssertionError(f"a search looked at {name} of the test part")


def test_a_search_never_looks_at_the_test_part(problem, monkeypatch):
    divided = benches.divide

    def hidden(*arguments):
        return replace(divided(*arguments), test=Secret())

    monkeypatch.setattr(benches, "divide", hidden)
    result, bench = search(problem, local_search="unrolled", local_steps=1, **SETTINGS)
    assert result.best.candidate.fate is Fate.SCORED
    with pytest.raises(AssertionError, match=r"looked at \w+ of the test part"):
        evaluate(bench, [contender("ga")], 1)


def encoded(bench, rows):
    return {bench.language.encoder.encode(each).ids for each in rows}


def trained(bench, part):
    if part is None:
        return set()
    lengths = part.data.attention.sum(1).tolist()
    return {tuple(row[:n]) for row, n in zip(part.data.tokens.tolist(), lengths, strict=True)}


def test_what_is_trained_on(problem):
    bench = bench_of(problem)
    data, parts = problem.data, bench.divided
    search, test = bench.searching, bench.testing
    for phase in (search, test):
        assert trained(bench, phase.sets.forget) == encoded(bench, data.forget)
    assert trained(bench, search.sets.retain) == trained(bench, test.sets.retain)
    secret = encoded(bench, parts.test.retain)
    for phase in (search, test):
        kept = trained(bench, phase.sets.retain)
        assert kept
        assert not kept & secret
        # What tells whether it was kept is not what was trained on.
        assert not kept & {each.ids for each in phase.prepared.sets["retain"].answers}
    assert {each.ids for each in test.prepared.sets["retain"].answers} == secret
    again = {each.ids for each in test.prepared.sets["trained"].answers}
    assert again <= trained(bench, test.sets.retain)
    assert len(again) == min(len(secret), len(trained(bench, test.sets.retain)))
    assert "trained" not in search.prepared.sets
    for phase, part in ((search, parts.search), (test, parts.test)):
        asked = {each.ids for each in phase.prepared.sets["forget"].answers}
        assert asked == encoded(bench, part.forget)


def test_each_adapter_of_a_finalist_is_measured_on_other_rows_to_keep(problem):
    bench = bench_of(problem, finalists=2, final_seeds=3)
    assert list(bench.selecting) == ["searching", *(bench.finals(number) for number in (1, 2, 3))]
    phases = [bench.phase(name) for name in bench.selecting]
    mine = encoded(bench, bench.divided.search.retain)
    parts = []
    for phase in phases:
        kept = trained(bench, phase.sets.retain)
        asked = {each.ids for each in phase.prepared.sets["retain"].answers}
        assert kept | asked == mine
        assert not kept & asked
        assert trained(bench, phase.sets.forget) == trained(bench, phases[0].sets.forget)
        assert phase.prepared.sets["forget"] == phases[0].prepared.sets["forget"]
        parts.append(frozenset(asked))
    assert len({len(each) for each in parts}) == 1
    assert len(set(parts)) == 4
    assert bench_of(problem, finalists=0).selecting == ("searching",)


def test_constants_are_tuned_by_rows_that_a_search_may_look_at(problem):
    bench = bench_of(problem)
    chosen, whole = bench.validation.forget, bench.searching.sets.forget
    assert trained(bench, chosen) == encoded(bench, bench.divided.search.forget)
    assert len(chosen) < len(whole)
    known = {
        tuple(row): each
        for row, each in zip(whole.data.tokens.tolist(), whole.reference, strict=True)
    }
    width = whole.data.tokens.shape[1]
    for tokens, reference in zip(chosen.data.tokens.tolist(), chosen.reference, strict=True):
        (found,) = (each for row, each in known.items() if list(row[: len(tokens)]) == tokens)
        torch.testing.assert_close(reference, found[: len(reference)])
        assert len(reference) <= width
    assert bench.validation.retain is bench.searching.sets.retain


@pytest.mark.parametrize("changed", ["forget", "retain", "the model", "the retain model"])
def test_a_run_goes_on_with_what_it_began_with_alone(problem, unlearning_folder, tmp_path, changed):
    folder = tmp_path / "own"
    shutil.copytree(unlearning_folder, folder)
    files = {name: str(folder / f"{name}.jsonl") for name in ("forget", "retain")}
    own = load_problem(str(folder / "model"), retain_model=str(folder / "twin"), **files)
    run = tmp_path / "run"
    search(own, out=run, **{**SETTINGS, "finalists": 0})
    with Store.open(run, write=False) as store:
        reopened(store)
        if changed.startswith("the"):
            other = {"the model": "twin", "the retain model": "model"}[changed]
            mine = {"the model": "model", "the retain model": "twin"}[changed]
            shutil.copytree(unlearning_folder / other, folder / mine, dirs_exist_ok=True)
        else:
            lines = Path(files[changed]).read_text().splitlines()
            Path(files[changed]).write_text("\n".join(lines[:-1]))
        with pytest.raises(UserError, match=f"{changed}.* had other content: put that back"):
            reopened(store)


def test_the_same_weights_elsewhere_are_the_same(problem, unlearning_folder, tmp_path):
    shutil.copytree(unlearning_folder / "model", tmp_path / "moved")
    moved = replace(problem, model=str(tmp_path / "moved"))
    assert bench_of(moved).digests == bench_of(problem).digests
    assert bench_of(moved, precision="bf16").digests != bench_of(problem).digests


def test_few_rows_to_keep_are_not_divided_again(problem):
    kept, said = problem.data.retain, []
    few = with_data(problem, retain=replace(kept, rows=kept.rows[:4]))
    bench = Bench(few, unlearn_settings(**SETTINGS), said.append)
    assert any("measured on those that are trained on" in line for line in said)
    rows = encoded(bench, bench.divided.search.retain)
    assert trained(bench, bench.searching.sets.retain) == rows
    assert {each.ids for each in bench.searching.prepared.sets["retain"].answers} == rows
    assert bench.selecting == ("searching",)


def test_forget_only_the_retain_set_is_measured_and_not_trained_on(problem):
    result, bench = search(problem, forget_only=True, **SETTINGS)
    assert bench.searching.sets.retain is None is bench.testing.sets.retain
    assert result.best.candidate.details["metrics"]["utility_kept"] > 0
    for each in result.history:
        assert not any("retain" in name for name in inputs_of(each.expression))
    outcome = evaluate(bench, [found_contender(result.best, 1e-3), contender("IdkDPO")], 1)
    assert all(row.values[0] is not None for row in outcome.rows)
    assert not any("trained_kept" in row.values[0] for row in outcome.rows)


def test_with_nothing_to_keep_no_loss_is_better_than_another(problem):
    with pytest.raises(UserError, match=r"nothing that is to be kept .*--forget-only"):
        search(with_data(problem, retain=None), **SETTINGS)


def test_with_nothing_to_forget_there_is_no_search(problem):
    same = replace(problem, retain_model=problem.model)
    with pytest.raises(UserError, match="there is nothing to forget"):
        search(same, **SETTINGS)


def test_a_holdout_set_and_a_retain_model_add_their_metrics(problem, unlearning_folder):
    more = with_data(problem, holdout=fictional.data().holdout)
    more = replace(more, retain_model=str(unlearning_folder / "twin"))
    result, bench = search(more, **SETTINGS)
    metrics = result.best.candidate.details["metrics"]
    assert {"mia_loss", "privleak", "forget_quality"} <= set(metrics)
    assert bench.searching.retain.values["forget_prob"] < 0.5
    assert bench.searching.original.values["forget_prob"] > 0.5


@pytest.mark.parametrize("count", [2, 3])
def test_the_smallest_sets_there_can_be(problem, count):
    few = {
        name: replace(rows, rows=rows.rows[:count])
        for name, rows in (("forget", problem.data.forget), ("retain", problem.data.retain))
    }
    result, _ = search(with_data(problem, **few), **{**SETTINGS, "epochs": 1, "batch": 8})
    assert {each.steps for each in result.history if each.fate is Fate.SCORED} == {1}


# Finals


def test_finalists_are_tried_at_several_learning_rates(problem):
    rates = (1e-4, 1.0, 2e-4)
    result, _ = search(problem, **{**SETTINGS, "final_rates": rates, "final_seeds": 2})
    best = result.best
    assert best.lr == pytest.approx(best.candidate.rate * SETTINGS["lr"])
    own = [each.steps for each in result.history if each.id == best.candidate.id]
    assert result.budget.steps - sum(each.steps for each in result.history) >= 4 * own[0]


def test_finals_train_as_many_adapters_as_are_told(problem, monkeypatch):
    trained = []
    again = Unlearning._again

    def counted(self, pairs, seed):
        trained.extend(pairs)
        return again(self, pairs, seed)

    monkeypatch.setattr(Unlearning, "_again", counted)
    changes = {"final_rates": (0.5, 1.0), "final_seeds": 2, "finalists": 2}
    result, bench = search(problem, **{**SETTINGS, **changes})
    assert len(result.history) > 2, "some are no finalists, those of the front among them"
    assert len(trained) == bench.settings.final_trainings == 2 * (2 + 1)
    assert len({candidate.id for candidate, _ in trained}) == 2


def test_where_no_final_can_be_trained_the_first_scores_stand(problem):
    rates = (1e30,)
    result, _ = search(problem, **{**SETTINGS, "final_rates": rates, "final_seeds": 3})
    assert result.best.lr is None
    assert result.best.error == result.best.candidate.error
    assert found_contender(result.best, 4e-3).lr == 4e-3 * result.best.candidate.rate


def test_a_loss_of_a_search_that_is_not_over_keeps_its_rate():
    candidate = Candidate(0, 0, 0, "given", (), zoo.loss("ga"), "", epochs=3, rate=2.0)
    known = FoundLoss(candidate, -0.5, None)
    assert (found_contender(known, 1e-3).lr, found_contender(known, 1e-3).epochs) == (2e-3, 3)
    assert found_contender(replace(known, lr=5e-4), 1e-3).lr == 5e-4


# What is left behind


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    """A run, its bench, and the record of its evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLOSS_CACHE", str(folder / "cache"))
        result, bench = search(problem, out=folder / "run", **SETTINGS)
        told = []
        record = conclude(
            bench, result.best, ["ga", "IdkDPO"], Effort(3), 2, result.run / "adapter",
            lambda what, share: told.append((what, share)),
        )  # fmt: skip
    assert told[-1] == ("evaluating", 1.0)
    assert {what for what, _ in told} == {"tuning ga", "tuning IdkDPO", "evaluating"}
    return result, bench, record


def test_the_adapter_is_that_of_the_record_by_peft_alone(finished, problem):
    result, bench, record = finished
    model = peft.PeftModel.from_pretrained(base_of(problem), str(result.run / "adapter")).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(problem.model)
    row = record["rows"][0]
    test = bench.divided.test
    probs = [by_hand(model, tokenizer, each) for each in test.forget]
    assert sum(probs) / len(probs) == pytest.approx(row["values"][0]["forget_prob"], abs=1e-4)
    kept = [by_hand(model, tokenizer, each) for each in test.retain]
    assert sum(kept) / len(kept) == pytest.approx(row["values"][0]["retain_prob"], abs=1e-4)
    for sample in record["samples"]:
        assert sample["after"]["found"] == answered(model, tokenizer, sample["question"])
        assert sample["before"] == answered(base_of(problem), tokenizer, sample["question"])
    truths = {each.prompt: each.answer for each in test.forget}
    assert {each["question"]: each["truth"] for each in record["samples"]}.items() <= truths.items()


def base_of(problem):
    return transformers.AutoModelForCausalLM.from_pretrained(problem.model).eval()


def by_hand(model, tokenizer, example):
    """The probability of an answer to the power of one over its length."""
    before, after = fictional.ids(example)
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0]
    scores = logits.log_softmax(-1)[len(before) - 1 : -1]
    return float(scores.gather(-1, torch.tensor(after)[:, None]).mean().exp())


def answered(model, tokenizer, question):
    ids = tokenizer(f"Question: {question}\nAnswer:", return_tensors="pt")
    with torch.no_grad():
        out = model.generate(
            input_ids=ids.input_ids, attention_mask=ids.attention_mask, do_sample=False,
            max_new_tokens=32, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    return tokenizer.decode(out[0, ids.input_ids.shape[1] :], skip_special_tokens=True).strip()


def test_the_record_has_all_that_was_compared_as_plain_data(finished):
    _, _, record = finished
    assert json.loads(json.dumps(record)) == record
    assert [row["label"] for row in record["rows"]] == ["found", "ga", "IdkDPO"]
    for row in record["rows"]:
        assert len(row["values"]) == len(row["reasons"]) == 2
        assert row["lr"] > 0
        assert 1 <= row["epochs"] <= 2
    assert record["rows"][2]["formula"].startswith("IdkDPO(beta ")
    before = record["models"]["before"]
    assert 0.5 < before["forget_prob"] <= 1
    assert record["rows"][0]["values"][0]["balance"] > 0
    assert all(set(each["after"]) == {"found", "ga", "IdkDPO"} for each in record["samples"])


def test_a_found_loss_that_cannot_be_trained_is_said_and_saves_nothing(problem, tmp_path):
    said = []
    bench = Bench(problem, unlearn_settings(**SETTINGS), said.append)
    wild = Candidate(0, 0, 0, "given", (), zoo.loss("ga"), "", epochs=2, rate=1e30)
    found = FoundLoss(wild, -0.5, None)
    record = conclude(bench, found, ["wga"], Effort(1), 1, tmp_path / "adapter")
    assert record["rows"][0]["values"] == [None]
    assert not (tmp_path / "adapter").exists()
    assert any("no adapter of the found loss: " in line for line in said)
    assert [row["label"] for row in record["rows"]] == ["found", "wga"]


def test_a_hand_written_loss_that_breaks_down_is_left_out_and_named(problem, tmp_path):
    said = []
    bench = Bench(problem, unlearn_settings(**{**SETTINGS, "lr": 1e30}), said.append)
    fine = Candidate(0, 0, 0, "given", (), zoo.loss("ga"), "", epochs=1)
    record = conclude(bench, FoundLoss(fine, -0.5, None, lr=1e-3), ["npo"], Effort(4), 1, None)
    assert [row["label"] for row in record["rows"]] == ["found"]
    assert any("'npo' broke down in all of 2 trainings" in line for line in said)


# The tuning of hand-written losses


@pytest.fixture
def tuning(problem, monkeypatch):
    """Tunes `npo` with scores that are told, by whether they are of finals: trains nobody."""

    def run(effort, score, **changes):
        asked = []

        def trained(bench, phase, group, purpose, seed, executor=None):
            asked.append((seed, list(group)))
            tried = [Tried({}, score(seed, at), 10) for at in range(len(group))]
            return SimpleNamespace(run=lambda *_, **__: tried)

        monkeypatch.setattr(contenders, "trials", trained)
        bench = Bench(problem, unlearn_settings(**{**SETTINGS, "final_seeds": 3, **changes}))
        return contenders.tuned(bench, "npo", effort), asked

    return run


def test_a_hand_written_loss_has_the_trainings_and_finals_of_a_search(tuning):
    found, asked = tuning(Effort(20), lambda seed, at: 0.5, finalists=4)
    assert [(seed, len(group)) for seed, group in asked] == [(0, 11), (1, 3), (2, 3), (3, 3)]
    assert (found.trainings, found.steps, found.score) == (20, 200, 0.5)
    first, *others = asked[0][1]
    assert (first.constants, first.epochs, first.lr) == ({}, 2, 4e-3)
    drawn = [each.lr / 4e-3 for each in others]
    assert 1 / 4 <= min(drawn) < 1 < max(drawn) <= 4


def test_it_is_tried_on_until_it_has_taken_the_steps_of_a_search(tuning):
    found, asked = tuning(Effort(20, 191), lambda seed, at: 0.5, finalists=4, population=4)
    counts = [len(group) for seed, group in asked if seed == 0]
    assert counts == [11, 4, 4, 4]  # each training takes ten steps
    assert found.trainings == sum(counts) + 9
    every = [(each.lr, *each.constants.values()) for _, group in asked[:4] for each in group]
    assert len(set(every)) == len(every)


def test_the_finals_decide_and_not_one_lucky_training(tuning):
    lucky = {0: 0.9, 1: 0.8, 2: 0.7}
    finals = {1: (0.1, 0.6, 0.6), 2: (0.9, 0.7, 0.5), 3: (0.1, 0.8, None)}

    def score(seed, at):
        return finals[seed][at] if seed else lucky.get(at, 0.0)

    found, asked = tuning(Effort(18), score, finalists=3)
    assert found.contender == asked[1][1][1]
    assert found.score == pytest.approx((0.6 + 0.7 + 0.8) / 3)


def test_where_no_final_can_be_trained_the_best_training_stands_without_a_score(tuning):
    found, asked = tuning(Effort(18), lambda seed, at: None if seed else 1.0 - at)
    assert found.contender == asked[0][1][0]
    assert found.score is None


# Reference log-probabilities


def counted(monkeypatch):
    calls, reference = [], language.reference

    def noted(*arguments):
        calls.append(1)
        return reference(*arguments)

    monkeypatch.setattr(language, "reference", noted)
    return calls


def test_reference_log_probabilities_are_kept_by_model_and_data(
    problem, unlearning_folder, cache, monkeypatch, tmp_path
):
    calls = counted(monkeypatch)
    folder = tmp_path / "model"
    shutil.copytree(unlearning_folder / "model", folder)
    own = replace(problem, model=str(folder))
    first = bench_of(own).searching.sets
    assert len(calls) == 2
    assert len(list((cache / "unlearn").glob("reference-*.safetensors"))) == 2
    again = bench_of(own).searching.sets
    assert len(calls) == 2
    assert torch.equal(again.forget.reference, first.forget.reference)
    with torch.no_grad():
        model = base_of(own)
        tokens = first.forget.data
        torch.testing.assert_close(
            first.forget.reference.sum(1) / tokens.answer.sum(1), mean_log_probs(model, tokens)[0],
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    bench_of(own, seed=1).searching  # noqa: B018  another division: others are kept
    assert len(calls) == 3
    fictional.saved(folder, steps=20)  # other weights, of the same size
    changed = bench_of(own).searching.sets
    assert len(calls) == 5
    assert not torch.allclose(changed.forget.reference, first.forget.reference)


@pytest.mark.parametrize("file", ["config.json", "pytorch_model.bin"])
def test_whatever_changes_a_model_changes_its_key(problem, unlearning_folder, tmp_path, file):
    folder = tmp_path / "model"
    shutil.copytree(unlearning_folder / "model", folder)
    if file.endswith(".bin"):
        (folder / "model.safetensors").unlink()
        torch.save(fictional.model(steps=40).state_dict(), folder / file)
    before = language.load_language(str(folder)).key
    if file.endswith(".bin"):
        torch.save(fictional.model(steps=20).state_dict(), folder / file)
    else:
        config = json.loads((folder / file).read_text())
        config["rms_norm_eps"] = 0.1
        (folder / file).write_text(json.dumps(config))
    assert language.load_language(str(folder)).key != before


def test_what_is_done_to_the_data_is_told_once(problem):
    said = []
    bench = Bench(problem, unlearn_settings(**SETTINGS), said.append)
    _ = bench.searching, bench.testing
    template = "the tokenizer has no chat template: prompts are 'Question: {prompt}\\nAnswer:'"
    assert said == [f"note: {template}"]


def test_a_problem_in_memory_needs_no_files(problem):
    data = replace(fictional.data(), probes={}, choices={})
    result, _ = search(Problem(data, problem.model, None, None), **SETTINGS)
    assert result.run is None
