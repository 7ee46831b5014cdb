"""The search for an unlearning loss in the loop: its history, its breaks, its failures."""

import math
import multiprocessing
import socket
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cramped import cramp
from evoloss.discovery.candidate import Fate
from evoloss.discovery.randomness import Purpose
from evoloss.errors import NothingTrained, UserError
from evoloss.execution import journal
from evoloss.execution.executor import Fault
from evoloss.execution.in_process import InProcess
from evoloss.lang import zoo
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS
from evoloss.propose.llm import Endpoint, usage_of
from evoloss.propose.proposer import Proposal
from evoloss.propose.unlearning import UnlearningEvolution
from evoloss.store import Store
from evoloss.unlearn import arena, trainings, trials
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.methods import makers
from evoloss.unlearn.plain import Entry
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.search import resume, search
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.trainings import Group, Trainings
from propose.llm_server import Scripted, Server, losses

pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

SETTINGS = {
    "population": 6, "generations": 3, "epochs": 2, "batch": 3, "lr": 4e-3, "rank": 2,
    "texts": 2, "finalists": 2, "final_seeds": 1, "final_rates": (1.0,), "together": 6,
}  # fmt: skip
GRAD_DIFF = zoo.loss("grad-diff")


def problem_in(folder, **sets):
    given = {"forget": "forget", "retain": "retain"} | sets
    files = {role: str(folder / f"{name}.jsonl") for role, name in given.items() if name}
    return load_problem(str(folder / "model"), **files)


@pytest.fixture(scope="module")
def problem(unlearning_folder):
    return problem_in(unlearning_folder)


@pytest.fixture(scope="module")
def whole(problem, tmp_path_factory):
    """What comes of a search that nothing disturbs."""
    result, _ = search(problem, out=tmp_path_factory.mktemp("whole") / "run", **SETTINGS)
    return result


class Given:
    """Proposes what it is given, generation by generation, and remembers what it is told."""

    def __init__(self, *generations):
        self.generations = generations
        self.told = []

    def ask(self, generation):
        return self.generations[generation] if generation < len(self.generations) else ()

    def tell(self, generation, results):
        self.told.append(results)


def proposal(text, epochs=2, rate=1.0):
    expression = parse(text, UNLEARNING_TOKENS if "mask" in text else UNLEARNING)
    return Proposal(expression, "given", (), epochs, rate)


def tried(problem, *generations, **settings):
    """The candidates of given proposals, and the bench they were tried on."""
    given = Given(*generations)
    changes = {**SETTINGS, "finalists": 0, **settings}
    result, bench = search(problem, makers={"gp": lambda space: given}, **changes)
    return result.history, bench, given.told


def what_matters(history):
    return [
        (each.id, each.parents, each.operator, each.canonical, each.epochs, each.rate, each.fate,
         each.same_as, each.steps)
        for each in history
    ]  # fmt: skip


def test_a_search_finds_a_loss_of_its_own_history(whole):
    assert [each.generation for each in whole.history] == [0] * 6 + [1] * 6 + [2] * 6
    assert whole.best.candidate in whole.history
    scored = [each for each in whole.history if each.fate is Fate.SCORED]
    assert whole.best.error < 0
    assert all(-1 <= each.error <= 0 for each in scored)
    assert {"forgetting", "utility_kept", "balance"} <= set(scored[0].details["metrics"])
    assert scored[0].error == -scored[0].details["metrics"]["balance"]


@pytest.mark.parametrize("together", [1, 4])
def test_how_many_train_side_by_side_changes_nothing(problem, whole, together):
    again, bench = search(problem, **{**SETTINGS, "together": together})
    assert bench.sharing.together == together
    assert what_matters(again.history) == what_matters(whole.history)
    for one, other in zip(again.history, whole.history, strict=True):
        assert one.error == pytest.approx(other.error, abs=1e-4)
    assert again.best.candidate.id == whole.best.candidate.id
    assert again.best.lr == whole.best.lr


def test_the_seed_decides(problem, whole):
    again, _ = search(problem, **SETTINGS)
    assert again.history == whole.history
    other, _ = search(problem, **{**SETTINGS, "generations": 2, "seed": 1})
    assert what_matters(other.history) != what_matters(whole.history)[:12]


class Broken(Exception):
    pass


@pytest.mark.parametrize(
    ("generation", "stage"),
    [(1, "training"), (2, "screening"), (2, "training"), (3, "saved"), (3, "finalists")],
)
def test_broken_off_and_resumed_it_has_the_same_history(problem, whole, tmp_path, generation,
                                                        stage):  # fmt: skip
    def stop(progress):
        if (progress.generation, progress.stage) == (generation, stage):
            raise Broken

    with pytest.raises(Broken):
        search(problem, out=tmp_path / "run", observer=stop, **SETTINGS)
    again, _ = resume(tmp_path / "run")
    assert again.history == whole.history
    assert again.best == whole.best
    finished, _ = resume(tmp_path / "run")
    assert finished.best == whole.best


def test_broken_off_within_a_generation_no_shard_is_done_twice(problem, tmp_path, monkeypatch):
    settings = {**SETTINGS, "shard": 2, "together": 2}
    whole, _ = search(problem, **settings)
    monkeypatch.setattr(journal, "WORTH", 0.0)
    do, done = Trainings.do, []

    def breaking(self, call, items, common, tick):
        # When some have gone on from the states that others answered with.
        if sum(each[1] for each in done if each) == 2 and None not in done:
            done.append(None)
            raise Broken
        answers = do(self, call, items, common, tick)
        entries = [each.get("entry", each) for each in items]
        done.append((entries, items[0]["state"] is not None, common["end"]))
        return answers

    monkeypatch.setattr(Trainings, "do", breaking)
    with pytest.raises(Broken):
        search(problem, out=tmp_path / "run", **settings)
    kept = list((tmp_path / "run" / journal.FOLDER).iterdir())
    assert len(kept) > 4
    again, _ = resume(tmp_path / "run")
    assert again.history == whole.history
    assert again.best == whole.best
    assert not (tmp_path / "run" / journal.FOLDER).exists()
    broken_off = done.index(None)
    resumed = done[broken_off + 1 :]
    assert all(each not in resumed for each in done[broken_off - len(kept) : broken_off])


def searching(problem, run, moments):
    """In a process of its own: tells where it is and waits to be killed."""
    torch.set_num_threads(1)

    def tell(progress):
        moments.send((progress.generation, progress.stage))
        if (progress.generation, progress.stage) == (2, "training"):
            moments.recv()

    search(problem, out=run, observer=tell, **SETTINGS)


def test_killed_and_resumed_it_has_the_same_history(problem, whole, tmp_path):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=searching, args=(problem, tmp_path / "run", there))
    process.start()
    there.close()
    moment = None
    while moment != (2, "training"):
        assert here.poll(120)
        moment = here.recv()
    process.kill()
    process.join()
    here.close()
    assert process.exitcode == -9
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.generations == 1
    again, _ = resume(tmp_path / "run")
    assert again.history == whole.history
    assert again.best == whole.best


# What becomes of losses


def test_the_same_loss_is_trained_once(problem):
    same = "mean(log_probs_forget) - mean(log_probs_retain)"
    first = [
        proposal(same), proposal(f"-(mean(log_probs_retain) - mean(log_probs_forget)) + {0}"),
        proposal(same, epochs=1), proposal(same, rate=2.0),
    ]  # fmt: skip
    second = [proposal(f"3*({same}) + 1"), proposal(same), proposal(f"3*({same})", epochs=1)]
    history, bench, _ = tried(problem, first, second)
    fates = [(each.fate, each.same_as) for each in history]
    assert fates == [
        (Fate.SCORED, None), (Fate.DUPLICATE, 0), (Fate.SCORED, None), (Fate.SCORED, None),
        (Fate.EQUIVALENT, 0), (Fate.DUPLICATE, 0), (Fate.EQUIVALENT, 2),
    ]  # fmt: skip
    assert history[1].error == history[4].error == history[0].error
    one, two = (bench.steps(bench.searching, epochs) for epochs in (1, 2))
    assert [each.steps for each in history] == [two, 0, one, two, 0, 0, 0]


def test_what_fails_a_cheap_test_is_never_trained(problem, monkeypatch, tmp_path):
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path))
    bad = [
        "-mean(log_probs_forget)", "mean(log_probs_retain) + mean(log_probs_forget)",
        "mean(exp(-1000*log_probs_forget))", "mean(ref_log_probs_forget)*0 + mean(log_probs_retain)"
    ]  # fmt: skip
    asked = []
    advance = trainings.advance

    def noted(model, lora, objective, *rest):
        asked.append(len(objective))
        return advance(model, lora, objective, *rest)

    monkeypatch.setattr(trainings, "advance", noted)
    given = [replace(proposal("mean(log_probs_forget)"), expression=parse_any(t)) for t in bad]
    history, _, _ = tried(problem, [*given, proposal("mean(log_probs_forget)")])
    assert [each.fate for each in history] == [Fate.REJECTED] * 4 + [Fate.SCORED]
    assert all(each.reason and each.steps == 0 and each.error is None for each in history[:4])
    assert set(asked) == {1, 6}  # the good one; and six to see what is fastest


def test_how_adapters_share_a_machine_is_found_out_once(problem, monkeypatch, tmp_path):
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path))
    settings = {**SETTINGS, "together": None, "shard": None, "generations": 1, "finalists": 0}
    whole, bench = search(problem, **settings)

    def never(*arguments):
        raise AssertionError("it is timed again")

    monkeypatch.setattr(arena, "fastest", never)
    again, other = search(problem, **settings)
    assert other.sharing == bench.sharing
    assert again.history == whole.history
    with pytest.raises(AssertionError, match="timed again"):
        search(problem, **{**settings, "batch": 2})


def test_a_way_to_share_that_was_disturbed_once_is_still_taken_if_it_is_fastest(monkeypatch):
    clock = {"now": 0.0}
    disturbed = iter([100.0])

    class Timed:
        def __init__(self, count):
            self.count = count

        def advanced(self, running, standing, end):
            clock["now"] += {1: 1.0, 4: 2.0}[self.count]  # four in a batch: half a second each
            clock["now"] += next(disturbed, 0.0) if self.count == 4 and end > 1 else 0.0
            return standing

    monkeypatch.setattr(trials.time, "perf_counter", lambda: clock["now"])
    bench = SimpleNamespace(start=None)

    def group_of(count):
        return SimpleNamespace(here=lambda: Timed(count))

    assert trials.fastest(bench, group_of, {1, 4}).together == 4


def test_trainings_that_end_together_share_a_batch_and_the_longest_begin_first(problem):
    handed_out = []

    class Asked(InProcess):
        def run(self, call, items, common, tick):
            handed_out.extend(each["entry"]["steps"] for each in items)
            return [Fault(f"{each['entry']['steps']} steps") for each in items]

    bench = Bench(problem, UnlearnSettings(**SETTINGS))
    steps = [2, 4, 1, 4, 2]
    entries = [Entry(GRAD_DIFF, each, 1e-3) for each in steps]
    some = trials.Trials(
        bench, bench.searching, entries, Purpose.FITNESS_BATCHES, 0, Asked(Trainings(bench))
    )
    done = some.run(bench.start)
    assert handed_out == [4, 4, 2, 2, 1]
    assert [each.reason for each in done] == [f"{each} steps" for each in steps]


def parse_any(text):
    return parse(text, replace(UNLEARNING, required=()))


def test_a_loss_that_breaks_down_fails_alone(problem):
    good = [proposal("mean(log_probs_forget) - mean(log_probs_retain)"), proposal(NPO)]
    bad = {
        "mean(exp(-1000*log_probs_forget))": "infinite or not a number",
        "0*mean(log_probs_forget) + mean(detach(log_probs_forget))": "did not move",
        "mean(log_probs_forget - log_probs_retain)": "infinite or not a number",
    }
    alone, _, _ = tried(problem, good, racing=False)
    mixed = [good[0], *map(proposal, bad), good[1]]
    # Two rows to forget and batches of three: no two vectors are of one length.
    few = replace(problem, data=replace(problem.data, forget=some(problem.data.forget, 2)))
    assert len(tried(few, good, racing=False)[1].searching.sets.forget) == 2
    history, _, _ = tried(problem, mixed, racing=False, rejection=False)
    assert [history[0].error, history[4].error] == pytest.approx([e.error for e in alone], abs=1e-4)
    in_few, _, _ = tried(few, mixed, racing=False, rejection=False)
    for each, reason in zip(in_few[1:4], bad.values(), strict=True):
        assert each.fate is Fate.FAILED
        assert reason in each.reason
        assert each.error is None
        assert each.steps > 0
    assert in_few[0].fate is in_few[4].fate is Fate.SCORED


NPO = "20*mean(softplus(0.1*(log_probs_forget - ref_log_probs_forget))) - mean(log_probs_retain)"


def some(rows, count):
    return replace(rows, rows=rows.rows[:count])


def test_nothing_trained_is_said(problem):
    with pytest.raises(NothingTrained, match=r"none of 1 candidate .*1 rejected"):
        tried(problem, [proposal("mean(log_probs_forget) + mean(log_probs_retain)")])


def test_every_known_loss_trains_those_of_tokens_too(problem):
    changes = {"method": "zoo", "population": 8, "generations": 1, "racing": False}
    result, _ = search(problem, **{**SETTINGS, **changes})
    assert len(result.history) == len(zoo.names("unlearning")) == 8
    assert {each.fate for each in result.history} == {Fate.SCORED}
    # Different losses, different outcomes.
    assert len({each.error for each in result.history}) == 8


def test_the_worse_half_drops_out_part_of_the_way(problem):
    given = [proposal("mean(log_probs_forget)", rate=rate) for rate in (0.5, 0.005, 0.01, 1)]
    early = proposal("mean(log_probs_forget)", epochs=1, rate=0.005)
    history, bench, _ = tried(problem, [*given, early])
    most = bench.steps(bench.searching, 2)
    rung = round(trials.RUNG * most)
    fates = [each.fate for each in history]
    assert fates == [Fate.SCORED, Fate.RACED_OUT, Fate.RACED_OUT, Fate.SCORED, Fate.SCORED]
    assert [each.steps for each in history] == [most, rung, rung, most, most / 2]
    assert rung < most
    assert "worse half" in history[1].reason
    assert history[1].error is not None


def test_what_is_told_compares_across_generations_and_with_who_left_the_race(problem):
    """A generation of good losses, one of bad ones, one with a race; and the same when resumed."""
    good = [proposal("mean(log_probs_forget) - mean(log_probs_retain)", rate=1.0)]
    bad = [proposal("mean(log_probs_forget)", rate=1e-3)]
    race = [proposal("mean(log_probs_forget)", rate=rate) for rate in (1, 0.01, 0.02, 2)]
    history, _, told = tried(problem, good, bad, race)
    errors = {each.id: each.error for each in history}
    flat = {each.id: each.error for results in told for each in results}
    raced = [each.id for each in history if each.fate is Fate.RACED_OUT]
    assert len(raced) == 2
    for id, error in flat.items():
        if id not in raced:
            assert error == errors[id]
    assert min(flat[id] for id in raced) > max(flat[id] for id in flat if id not in raced)
    assert sorted(raced, key=flat.get) == sorted(raced, key=errors.get)


def test_resumed_a_proposer_is_told_the_same(problem, tmp_path):
    rates = [(1, 0.01, 0.02, 2), (1e-4,)]  # the last one is the worst of all
    given = [[proposal("mean(log_probs_forget)", rate=r) for r in each] for each in rates]
    first, again = Given(*given), Given(*given)
    for proposer, begin in ((first, search), (again, None)):
        use = {"makers": {"gp": lambda space, proposer=proposer: proposer}}
        if begin:
            begin(problem, out=tmp_path / "run", **{**SETTINGS, "finalists": 0}, **use)
        else:
            resume(tmp_path / "run", **use)
    assert [[e.error for e in r] for r in again.told] == [[e.error for e in r] for r in first.told]


@pytest.mark.parametrize("budget", [{"max_candidates": 7}, {"max_steps": 1}, {"max_seconds": 1e-6}])
def test_each_budget_ends_a_search(problem, budget):
    settings = {**SETTINGS, "population": 4, "generations": 50, "epochs": 1, "finalists": 0}
    result, _ = search(problem, **settings, **budget)
    [(name, limit)] = budget.items()
    assert (result.ended.budget, result.ended.limit) == (name, limit)
    assert len(result.history) == 4
    steps = sum(each.steps for each in result.history)
    if name != "max_seconds":
        assert result.ended.used == (4 if name == "max_candidates" else steps)


def test_epochs_are_searched_within_an_equal_budget(problem, whole):
    losses = [proposal("mean(log_probs_forget)", epochs) for epochs in (1, 2, None)]
    history, bench, _ = tried(problem, losses)
    one = bench.steps(bench.searching, 1)
    assert [each.steps for each in history[:2]] == [one, 2 * one]
    assert bench.steps(bench.searching, 2) == 2 * one
    assert all(each.epochs in (1, 2) and each.steps <= 2 * one for each in whole.history)
    drawn, _ = search(
        problem, **{**SETTINGS, "method": "random", "seeded": False, "generations": 1}
    )
    assert {each.epochs for each in drawn.history} == {1, 2}


def test_an_outcome_does_not_depend_on_who_else_trains(problem):
    short = proposal("mean(log_probs_forget) - mean(log_probs_retain)", epochs=1)
    alone, _, _ = tried(problem, [short])
    beside, _, _ = tried(problem, [proposal(NPO), short])
    assert beside[1].error == pytest.approx(alone[0].error, abs=1e-5)


# Memory


def scarce(monkeypatch, most, error):
    advance, sizes = trainings.advance, []

    def limited(model, lora, objective, schedules, standing, running, end):
        sizes.append(len(running))
        if len(running) > most:
            raise error
        return advance(model, lora, objective, schedules, standing, running, end)

    monkeypatch.setattr(trainings, "advance", limited)
    return sizes


@pytest.mark.parametrize(
    ("error", "generations"),
    [(torch.OutOfMemoryError("CUDA out of memory."), 3), (MemoryError(), 1),
     (RuntimeError("alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), 1)],
    ids=["gpu", "python", "cpu"],
)  # fmt: skip
def test_out_of_memory_fewer_train_at_a_time_which_is_said(
    problem, whole, monkeypatch, error, generations
):
    """To the end of a search; how an error says so shows in the first generation."""
    scarce(monkeypatch, 2, error)
    said, finalists = [], SETTINGS["finalists"] if generations == 3 else 0
    settings = {**SETTINGS, "generations": generations, "finalists": finalists}
    again, bench = search(problem, say=said.append, **settings)
    wanted = whole.history[: len(again.history)]
    assert len(wanted) == 6 * generations
    assert what_matters(again.history) == what_matters(wanted)
    for one, other in zip(again.history, wanted, strict=True):
        assert one.error == pytest.approx(other.error, abs=1e-4)
    assert bench.sharing.together <= 2
    assert any("out of memory: 3 adapters at a time" in line for line in said)
    assert any("out of memory: 1 adapter at a time" in line for line in said)


SORTED = (
    "mean(head(sort(select(mask_forget, log_probs_forget)), 9))"
    " - quantile(select(mask_retain, log_probs_retain), 0.3)"
)


def test_out_of_memory_with_one_its_rows_go_through_the_model_a_few_at_a_time(
    problem, monkeypatch, tmp_path
):
    plain = "mean(log_probs_forget) - mean(log_probs_retain)"
    given = [proposal(plain, epochs=1), proposal(SORTED, epochs=1)]
    settings = {"together": 2, "batch": 8, "texts": 1, "generations": 1}
    whole, _, _ = tried(problem, given, **settings)
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path))
    passes, said = cramp(monkeypatch, 7), []
    again, bench, _ = tried(problem, given, say=said.append, **settings)
    assert what_matters(again) == what_matters(whole)
    for one, other in zip(again, whole, strict=True):
        assert one.error == pytest.approx(other.error, abs=1e-4)
        metrics = other.details["metrics"]
        assert one.details["metrics"] == pytest.approx(metrics, rel=1e-3, abs=1e-4)
    assert (bench.sharing.trained, bench.sharing.measured) == (4, 4)
    assert [line for line in said if "out of memory" in line] == [
        "out of memory: 16 rows measured at a time from here on",
        "out of memory: 8 rows measured at a time from here on",
        "out of memory: 4 rows measured at a time from here on",
        "out of memory: 1 adapter at a time from here on",
        "out of memory: 4 rows of a batch at a time from here on",
    ]
    assert sum(size > 7 for size in passes) == 5


def test_out_of_memory_while_a_rival_is_made_it_draws_the_same_again(problem, monkeypatch):
    bench = Bench(problem, UnlearnSettings(**SETTINGS))
    entry = Entry(None, 4, 1e-3, "IdkDPO", {})

    def made():
        group = Group.of(bench, bench.searching.name, [entry], Purpose.EVALUATION, 0, 4)
        return group.objective

    whole, passes = made(), cramp(monkeypatch, 1)
    again = made()
    assert max(passes) > 1
    assert bench.sharing.trained == 1
    assert torch.equal(again.minibatches.forget, whole.minibatches.forget)
    assert torch.equal(again.idk.rows, whole.idk.rows)
    torch.testing.assert_close(again.idk.part.reference, whole.idk.part.reference)


def test_too_little_memory_for_one_row_is_the_end(problem, monkeypatch):
    scarce(monkeypatch, 0, torch.OutOfMemoryError("out of memory"))
    said = []
    with pytest.raises(UserError, match=r"out of memory with a single row: .* --context \(now"):
        search(problem, say=said.append, **SETTINGS)
    assert said[-1] == "out of memory: 1 row of a batch at a time from here on"


def test_too_little_memory_to_measure_one_row_is_the_end(problem, monkeypatch):
    cramp(monkeypatch, 0)
    with pytest.raises(UserError, match="out of memory with a single row"):
        search(problem, **SETTINGS)


def test_another_error_is_not_taken_for_a_lack_of_memory(problem, monkeypatch):
    scarce(monkeypatch, 2, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        search(problem, **SETTINGS)


# A language model's proposals


def asked(problem, out, method, url, **settings):
    said = []
    endpoint = Endpoint(url, "tiny", retries=0, timeout=20)
    result, _ = search(
        problem, out=out, method=method, say=said.append, makers=makers(endpoint, said.append),
        endpoint=endpoint, **{**SETTINGS, "generations": 2, **settings},
    )  # fmt: skip
    with Store.open(out, write=False) as store:
        return result, said, store.records("llm")


def replies(number, request):
    return Scripted(losses(number + 1.5, number + 2.25, number + 3.125))


def test_a_language_models_losses_are_tried_and_all_that_is_said_is_kept(problem, tmp_path):
    with Server(replies) as server:
        result, said, records = asked(problem, tmp_path / "run", "llm", server.url)
    operators = Counter(each.operator for each in result.history)
    assert operators["llm"] == 6
    assert operators["llm refinement"] > 0
    sent = [each.body["messages"] for each in server.requests]
    assert sorted(map(str, (each["messages"] for each in records))) == sorted(map(str, sent))
    assert all("def loss_fn_1" in each["reply"] for each in records)
    parents = {each.parents for each in result.history if each.operator == "llm refinement"}
    best = min(result.history[:6], key=lambda each: each.error or 0.0)
    assert (best.id,) in parents
    # A prompt shows what was measured, with the errors that the search compares.
    prompt = str([each for each in sent if "balance" in str(each)])
    assert f"balance {-best.error:.4g}" in prompt
    assert "higher is better; harmonic mean of forgetting and utility kept" in prompt
    assert not [line for line in said if "wrote" in line]


def nobody():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize("method", ["llm", "mixture"])
def test_without_its_server_a_search_goes_on_with_the_others(problem, tmp_path, method):
    result, said, records = asked(problem, tmp_path / "run", method, nobody())
    assert len(result.history) == 12
    assert all("llm" not in each.operator for each in result.history)
    [line] = [each for each in said if "tiny wrote 0 of" in each]
    assert "\n" not in line
    assert all(each["reply"] == "" and each["errors"] for each in records)
    first = result.history[:6]
    assert not [each for each in first if each.fate is Fate.DUPLICATE]
    assert what_they_are(first) == what_they_are(known_and_random())


def what_they_are(each):
    return [e.expression for e in each][: len(zoo.names("unlearning"))]


def known_and_random():
    """The first losses of a breed, as they are without a language model."""
    every = [zoo.loss(name) for name in zoo.names("unlearning")]
    others = [each for each in every if each != GRAD_DIFF]
    return [Proposal(each, "") for each in [GRAD_DIFF, *others]][:6]


def test_a_mixture_has_losses_of_both(problem, tmp_path):
    with Server(replies) as server:
        result, _, records = asked(problem, tmp_path / "run", "mixture", server.url)
    makers = Counter(each.operator.split(" ")[0] for each in result.history)
    assert makers["llm"] >= 2
    assert makers["gp"] >= 2
    assert records


def test_replies_of_an_unfinished_generation_are_not_asked_for_again(problem, tmp_path):
    def stop(progress):
        if (progress.generation, progress.stage) == (2, "training"):
            raise Broken

    def reply(number, request):
        seed = request.body["seed"] / 2**31
        return Scripted(losses(1.5 + seed, 2.25 + seed, 3.125 + seed))

    with Server(reply) as server:
        whole, _, paid = asked(problem, tmp_path / "whole", "mixture", server.url)
        with pytest.raises(Broken):
            asked(problem, tmp_path / "run", "mixture", server.url, observer=stop)
    said = []
    with Store.open(tmp_path / "run", write=False) as store:
        endpoint, before = Endpoint(**store.about["endpoint"]), store.records()
        assert {each["generation"] for each in store.unfinished()} == {1}
    # Its server is not there any more.
    again, _ = resume(
        tmp_path / "run", makers=makers(endpoint, said.append, before), say=said.append
    )
    assert again.history == whole.history
    assert not [line for line in said if "wrote" in line]
    with Store.open(tmp_path / "run", write=False) as store:
        assert usage_of(store.records()) == usage_of(before) == usage_of(paid)
        assert store.unfinished() == []


# What is refused


def test_a_run_that_exists_is_refused_before_the_model_is_read(problem, whole, monkeypatch):
    monkeypatch.setattr("evoloss.unlearn.bench.load_language", None)
    with pytest.raises(UserError, match="holds a run already"):
        search(problem, out=whole.run, **SETTINGS)


def test_a_run_that_cannot_begin_is_not_locked(problem, tmp_path):
    with pytest.raises(UserError, match="'llm' needs an endpoint") as caught:
        search(problem, out=tmp_path / "run", **{**SETTINGS, "method": "llm"})
    Store.open(tmp_path / "run", write=True).close()
    with pytest.raises(UserError, match="needs an endpoint"):
        resume(tmp_path / "run")
    Store.open(tmp_path / "run", write=True).close()
    del caught


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "gpp"}, "unknown method 'gpp': did you mean 'gp'"),
        ({"objective": "balances"}, "did you mean 'balance'"),
        ({"local_search": "unroled"}, "did you mean 'unrolled'"),
        ({"epoch": 3}, "unknown setting 'epoch': did you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"lr": 0.0}, "lr is 0.0: give a number above 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"together": 0}, "together is 0"),
        ({"test_share": 1.5}, "test share is 1.5"),
        ({"seed": -1}, "seed is -1: give at least 0"),
        ({"objective": "muse_score"}, "'muse_score' cannot be measured: the data has no set"),
        ({"final_rates": ()}, "final_rates"),
        ({"final_seeds": 0}, "final_seeds is 0"),
        ({"finalists": -1}, "finalists is -1"),
    ],
)
def test_settings_that_will_not_do(problem, settings, message):
    with pytest.raises(UserError, match=message):
        search(problem, **{**SETTINGS, **settings})


def test_evolution_is_what_a_search_uses_by_default(problem):
    made = []

    def maker(space):
        made.append(UnlearningEvolution(space))
        return made[-1]

    search(problem, makers={"gp": maker}, **{**SETTINGS, "generations": 1, "finalists": 0})
    (proposer,) = made
    assert proposer.best
