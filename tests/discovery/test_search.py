"""Whole searches: the same seed, the same history, whatever interrupts it; the record it keeps."""

import math
import multiprocessing
import random

import numpy as np
import pytest
import torch
from torch import nn

import evoloss
from evoloss.discovery.archive import pareto
from evoloss.discovery.candidate import Fate
from evoloss.discovery.search import resume, search
from evoloss.discovery.settings import Settings
from evoloss.errors import ShapeError, UserError
from evoloss.lang.expr import check
from evoloss.store import Store
from tiny import SEARCH, TASKS, Convolution, Steep, regression, work

SETTINGS = {**SEARCH, "seed": 0}


pytestmark = pytest.mark.usefixtures("cache")  # a test's trials of stacking are its own


def outcome(result):
    """All that must not depend on interruptions, with every float in full."""
    worth = [(each.candidate, each.error, str(each)) for each in (result.best, *result.front)]
    return result.history, worth


@pytest.fixture(scope="module")
def expected():
    """The uninterrupted outcome of each kind of task."""
    return {kind: outcome(search(task(), **SETTINGS)) for kind, task in TASKS.items()}


# Determinism


@pytest.mark.parametrize("kind", TASKS)
def test_the_same_seed_gives_the_same_history(kind, expected):
    assert outcome(search(TASKS[kind](), **SETTINGS)) == expected[kind]


@pytest.mark.parametrize("kind", TASKS)
def test_another_seed_gives_another_history(kind, expected):
    other = search(TASKS[kind](), **{**SETTINGS, "seed": 1})
    mine = [each.expression for each in expected[kind][0]]
    assert [each.expression for each in other.history] != mine


@pytest.mark.parametrize("stacking", ["loop", "vmap"])
def test_networks_with_noise_of_their_own_repeat_too(stacking):
    first, second = (
        outcome(search(regression(Convolution), stacking=stacking, **SETTINGS)) for _ in range(2)
    )
    assert first == second


def test_global_random_numbers_neither_change_nor_matter(expected):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].copy(), random.getstate()
    assert outcome(search(regression(), **SETTINGS)) == expected["regression"]
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]


class RandomFeatures(nn.Module):
    """Half of it is drawn at random and never trained."""

    def __init__(self):
        super().__init__()
        self.features = nn.Linear(2, 6).requires_grad_(False)
        self.register_buffer("phase", torch.rand(6))
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(torch.sin(self.features(x) + self.phase))


def test_random_parts_that_are_not_trained_come_from_the_seed_too(tmp_path):
    first = search(regression(RandomFeatures), **SETTINGS)
    with pytest.raises(Stop):
        search(regression(RandomFeatures), out=tmp_path, observer=stop_after(20, Stop), **SETTINGS)
    assert outcome(resume(tmp_path, task=regression(RandomFeatures))) == outcome(first)


def test_a_longer_search_begins_like_a_shorter_one(expected):
    longer = search(regression(), **{**SETTINGS, "generations": 5})
    assert longer.history[: len(expected["regression"][0])] == expected["regression"][0]


# Stored runs


def test_a_stored_run_is_the_one_in_memory(tmp_path, expected):
    result = search(regression(), out=tmp_path / "run", **SETTINGS)
    assert outcome(result) == expected["regression"]
    assert result.run == tmp_path / "run"
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.candidates() == result.history
        assert store.generations == SETTINGS["generations"]
        assert store.outcome["best"] == result.best.candidate.id


def test_in_memory_nothing_is_written(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert search(regression(), **SETTINGS).run is None
    assert not list((tmp_path / "here").iterdir())


def test_resuming_a_finished_run_hands_it_back(tmp_path, expected):
    search(regression(), out=tmp_path / "run", **SETTINGS)
    seen = []
    again = resume(tmp_path / "run", task=regression(), observer=seen.append)
    assert outcome(again) == expected["regression"]
    assert not seen


class Stop(Exception):
    """Raised by an observer."""


def stop_after(count, error):
    """An observer that raises at its report number `count`."""
    reports = []

    def observer(progress):
        reports.append(progress)
        if len(reports) == count:
            raise error

    return observer


def reports_of(task, **settings):
    reports = []
    search(task, observer=reports.append, **settings)
    return reports


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_error_at_any_moment_leaves_a_run_that_resumes(tmp_path, expected, error):
    count = len(reports_of(regression(), **SETTINGS))
    for moment in range(1, count + 1, 2 if error is Stop else 3):
        run = tmp_path / str(moment)
        with pytest.raises(error):
            search(regression(), out=run, observer=stop_after(moment, error), **SETTINGS)
        assert outcome(resume(run, task=regression())) == expected["regression"], moment


def test_an_error_in_a_resumed_run_leaves_it_resumable(tmp_path, expected):
    run = tmp_path / "run"
    with pytest.raises(Stop):
        search(regression(), out=run, observer=stop_after(3, Stop), **SETTINGS)
    for moment in (5, 9, 14, 9):
        with pytest.raises(Stop):
            resume(run, task=regression(), observer=stop_after(moment, Stop))
    assert outcome(resume(run, task=regression())) == expected["regression"]


# SIGKILL


@pytest.fixture(scope="module")
def processes():
    """Real processes, forked from one that has the imports behind it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["evoloss.discovery.search", "tiny"])
    first = context.Process(target=int)  # starts the server now, with the usual cache
    first.start()
    first.join()
    return context


def killed(processes, job, kind, run, stop, **settings):
    """Runs a process and kills it at report number `stop`; returns its last report."""
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=work, args=(there, job, kind, run, stop), kwargs=settings)
    process.start()
    there.close()
    for _ in range(stop):
        assert here.poll(60), "the process says nothing"
        last = here.recv()
        assert last != "done", "the process finished before its time"
    process.kill()
    process.join()
    here.close()
    assert process.exitcode == -9
    return last


@pytest.mark.parametrize("kind", TASKS)
def test_killed_again_and_again_it_has_the_uninterrupted_history(
    tmp_path, processes, expected, kind
):
    run = tmp_path / "run"
    stages = [(each.generation, each.stage) for each in reports_of(TASKS[kind](), **SETTINGS)]
    wanted = [(1, "tuning"), (2, "training"), (3, "rejection"), (3, "saved"), (3, "finalists")]
    job, begun = "search", 0
    for moment in wanted:
        settings = SETTINGS if job == "search" else {}
        stop = stages.index(moment) + 1 - begun
        assert killed(processes, job, kind, run, stop, **settings) == moment
        with Store.open(run, write=False) as store:
            finished = store.generations
        assert finished == moment[0] - (moment[1] in ("tuning", "training", "rejection"))
        # A resumed run reports from the first stage of the generation that it begins with.
        begun = stages.index((finished, "saved")) + 1 if finished else 0
        # Before its first generation was saved, a run is resumed like any other.
        job = "resume"
    assert outcome(resume(run, task=TASKS[kind]())) == expected[kind]


def test_killed_without_warning(tmp_path, processes, expected):
    """The process runs on while it is killed, wherever it then is."""
    for number, reports in enumerate((2, 13, 25)):
        run = tmp_path / str(number)
        here, there = processes.Pipe(duplex=False)
        process = processes.Process(
            target=work, args=(there, "search", "regression", run, None), kwargs=SETTINGS
        )
        process.start()
        for _ in range(reports):
            assert here.poll(60)
            here.recv()
        process.kill()
        process.join()
        assert outcome(resume(run, task=regression())) == expected["regression"]


# What is refused


class WrongShape(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)


class Broken(nn.Linear):
    def __init__(self):
        super().__init__(5, 1)


@pytest.mark.parametrize("network", [WrongShape, Broken])
def test_a_network_of_the_wrong_shape_is_refused_before_there_is_a_run(tmp_path, network):
    with pytest.raises(ShapeError, match=network.__name__):
        search(regression(network), out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"poulation": 3}, "unknown setting 'poulation': known are"),
        ({"preset": "slow"}, "unknown preset 'slow'"),
        ({"generations": 0}, "generations is 0"),
        ({"local_search": "tabu"}, "unknown local search 'tabu'"),
    ],
)
def test_wrong_settings_are_refused_before_there_is_a_run(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        search(regression(), out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(tmp_path):
    first = search(regression(), out=tmp_path, **SETTINGS)
    with pytest.raises(UserError, match="holds a run already"):
        search(regression(), out=tmp_path, **{**SETTINGS, "seed": 1})
    assert resume(tmp_path, task=regression()).history == first.history


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, "resume it with evoloss.resume"),
        (regression(name="other"), "for task 'tiny', not 'other'"),
        (regression(network_name="other"), "for network 'mlp', not 'other'"),
    ],
)
def test_a_run_is_resumed_with_its_own_task(tmp_path, task, message):
    with pytest.raises(Stop):
        search(regression(), out=tmp_path, observer=stop_after(20, Stop), **SETTINGS)
    with pytest.raises(UserError, match=message) as mistake:
        resume(tmp_path, task=task)
    # The run is free again although the error, and all that it refers to, still lives.
    resume(tmp_path, task=regression())
    del mistake


def test_a_run_with_foreign_settings_is_free_after_the_refusal(tmp_path):
    settings = {"wings": 2}
    about = {"task": "tiny", "network": "mlp", "stacking": None}
    Store.create(tmp_path, task=None, settings=settings, about=about).close()
    for _ in range(2):
        with pytest.raises(UserError, match="does not know: wings"):
            resume(tmp_path, task=regression())


class Undifferentiable(nn.Linear):
    """Its training gives NaN under every loss."""

    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        return torch.sqrt(0.0 * super().forward(x))


def test_if_no_candidate_can_be_trained_it_says_so(tmp_path):
    task = regression(Undifferentiable)
    with pytest.raises(UserError, match=r"none of 18 candidates could be trained \(.*rejected"):
        search(task, out=tmp_path, local_search="none", **SETTINGS)
    with Store.open(tmp_path, write=False) as store:
        assert store.generations == 3
        assert Fate.FAILED in {each.fate for each in store.candidates()}


def test_networks_that_explode_fail_and_the_search_goes_on():
    result = search(
        regression(Steep),
        local_search="none",
        **{**SETTINGS, "population": 20, "fitness_steps": 60},
    )
    fates = [each.fate for each in result.history]
    assert fates.count(Fate.FAILED) >= 1
    assert fates.count(Fate.SCORED) >= 3
    assert math.isfinite(result.best.error)


def test_the_tiny_tasks_would_notice_a_look_at_the_test_split():
    for task in TASKS.values():
        with pytest.raises(AssertionError, match="test split"):
            task().episodes.test(0)


# The record


@pytest.mark.parametrize("preset", ["fast", "paper"])
@pytest.mark.parametrize("kind", TASKS)
def test_every_candidates_record_makes_sense(kind, preset):
    settings = {**SETTINGS, "population": 8, "generations": 4, "preset": preset}
    settings["rescale"] = False
    task = TASKS[kind]()
    result = search(task, **settings)
    history = result.history
    assert [each.id for each in history] == list(range(32))
    assert [(each.generation, each.index) for each in history] == [
        divmod(each.id, 8) for each in history
    ]
    for each in history:
        check(each.expression)
        assert all(history[parent].generation == each.generation - 1 for parent in each.parents)
        assert (each.same_as is not None) == (each.fate in (Fate.DUPLICATE, Fate.EQUIVALENT))
        assert bool(each.reason) == (each.fate is not Fate.SCORED)
        if each.same_as is not None:
            original = history[each.same_as]
            assert original.id < each.id
            assert original.same_as is None
            assert each.error == original.error
            if each.fate is Fate.DUPLICATE:
                # Its first occurrence may have been equivalent to one of another form.
                assert each.canonical in {other.canonical for other in history[: each.id]}
                assert each.steps == 0
        elif each.fate in (Fate.SCORED, Fate.RACED_OUT):
            assert math.isfinite(each.error)
            assert len(each.phi) >= 2
        else:
            assert each.error is None
    originals = [each.canonical for each in history if each.fate is not Fate.DUPLICATE]
    assert len(set(originals)) == len(originals)
    seen = {each.fate for each in history}
    assert {Fate.SCORED, Fate.REJECTED} <= seen
    if preset == "paper":
        assert not seen & {Fate.EQUIVALENT, Fate.RACED_OUT}
    assert result.budget.candidates == 32
    of_one_finalist = 5 * SETTINGS["fitness_steps"] * task.episodes_per_fitness
    scored = sum(each.fate is Fate.SCORED for each in history)
    finalists, rest = divmod(result.budget.steps - sum(e.steps for e in history), of_one_finalist)
    assert rest == 0
    assert min(SETTINGS["finalists"], scored) <= finalists <= scored
    assert result.budget.evaluated == sum(
        each.fate in (Fate.SCORED, Fate.RACED_OUT) for each in history
    )


@pytest.mark.parametrize("finalists", [0, 3])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_front_is_pareto_optimal_and_holds_the_best(seed, finalists):
    result = search(regression(), **{**SETTINGS, "seed": seed, "finalists": finalists})
    front = [(each.complexity, each.error) for each in result.front]
    assert front == sorted(front)
    errors = [error for _, error in front]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)
    assert result.best.error == errors[-1]
    assert all(each.candidate.fate is Fate.SCORED for each in result.front)
    scored = [(each, each.error) for each in result.history if each.fate is Fate.SCORED]
    if not finalists:
        assert [each.candidate for each in result.front] == pareto(scored)
        assert result.best.error == min(error for _, error in scored)


def test_the_best_as_a_torch_module_computes_its_expression():
    from loss_oracle import batch_loss

    best = search(regression(), **SETTINGS).best
    prediction, target = torch.randn(9, 1), torch.randn(9, 1)
    expected = batch_loss(best.expression, target, prediction, weights="none")
    torch.testing.assert_close(best.to_torch()(prediction, target), expected)


def test_progress_counts_up():
    reports = reports_of(regression(), **SETTINGS)
    assert [each.generation for each in reports] == sorted(each.generation for each in reports)
    saved = [each for each in reports if each.stage == "saved"]
    assert [each.generation for each in saved] == [1, 2, 3]
    assert [each.candidates for each in saved] == [6, 12, 18]
    assert all(sum(each.fates.values()) == each.candidates for each in reports)
    errors = [each.best.error for each in saved if each.best]
    assert errors == sorted(errors, reverse=True)
    assert {each.stage for each in reports} == {
        "screening", "rejection", "tuning", "training", "saved", "finalists",
    }  # fmt: skip


def test_a_task_by_its_name_and_the_public_functions(tmp_path):
    assert evoloss.search is search
    assert evoloss.resume is resume
    run = tmp_path / "run"
    with pytest.raises(Stop):
        search("diabetes", out=run, observer=stop_after(16, Stop), **SETTINGS)
    resumed = resume(run)
    assert outcome(resumed) == outcome(search("diabetes", **SETTINGS))


def test_a_population_of_two():
    result = search(regression(), **{**SETTINGS, "population": 2, "generations": 4})
    assert len(result.history) == 8


def test_settings_are_read_with_the_types_of_their_defaults():
    texts = ["implicit_terms=20", "es_sigma=1", "racing=false", "unroll=none", "weights=constants"]
    found = Settings.parsed(texts)
    assert found == {"implicit_terms": 20, "es_sigma": 1.0, "racing": False, "unroll": None,
                     "weights": "constants"}  # fmt: skip
    assert type(found["es_sigma"]) is float
