"""Unlearning searches on workers: the same history on any number of them, whoever is killed."""

import contextlib
import math
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from evoloss.discovery.candidate import Fate
from evoloss.discovery.result import FoundLoss
from evoloss.errors import UserError
from evoloss.execution import staff as staff_module
from evoloss.execution.staff import Staff
from evoloss.store import Store
from evoloss.unlearn import arena, language, sharing, trials, workers
from evoloss.unlearn import bench as bench_module
from evoloss.unlearn.contenders import Effort
from evoloss.unlearn.finish import conclude
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.search import reopened, resume, search
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import Sharing
from evoloss.unlearn.workers import own_device
from mirror import Mirror, mirrors

pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

SETTINGS = {
    "population": 6, "generations": 2, "epochs": 2, "batch": 3, "lr": 4e-3, "rank": 2,
    "texts": 2, "finalists": 2, "final_seeds": 1, "final_rates": (1.0,), "shard": 2,
}  # fmt: skip


UNTOLD = {name: value for name, value in SETTINGS.items() if name != "shard"}


@pytest.fixture(scope="module")
def problem(unlearning_folder):
    files = {role: str(unlearning_folder / f"{role}.jsonl") for role in ("forget", "retain")}
    twin = str(unlearning_folder / "twin")
    return load_problem(str(unlearning_folder / "model"), retain_model=twin, **files)


@pytest.fixture(scope="module")
def here(problem):
    """What comes of a search in this process."""
    return outcome(search(problem, **SETTINGS)[0])


def outcome(result):
    """All that must not depend on workers, with every float in full."""
    return result.history, (result.best.candidate, result.best.error, result.best.lr)


# The same history


def test_workers_have_the_history_of_a_search_in_shards(problem, here, mirror, monkeypatch):
    loaded = []
    real = language.load_language

    def noted(name, device=None, *others):
        loaded.append((name.rpartition("/")[2], device))
        return real(name, device, *others)

    monkeypatch.setattr("evoloss.unlearn.bench.load_language", noted)
    assert outcome(search(problem, workers=1, **SETTINGS)[0]) == here
    assert {each.fate for each in here[0]} >= {Fate.SCORED, Fate.RACED_OUT}
    # The driver measures both models once; a worker loads the one that it trains.
    assert loaded == [("model", "cpu"), ("twin", "cpu"), ("model", "cpu")]


def test_adapters_are_in_shards_without_workers_too(problem, here):
    alone, bench = search(problem, **UNTOLD)
    assert bench.settings.shard == 2
    assert outcome(alone) == here


def test_there_are_as_many_workers_as_usual(problem, here, mirror, machine):
    machine(cores=3)
    found, bench = search(problem, workers="usual", **UNTOLD)
    assert (mirrors[-1].workers, bench.sharing) == (3, Sharing(2, 1, workers=3))
    assert outcome(found) == here
    count = len(mirrors)
    machine(cores=1)
    assert outcome(search(problem, workers="usual", **UNTOLD)[0]) == here
    in_memory = replace(problem, source=None)
    machine(cores=3)
    assert outcome(search(in_memory, workers="usual", **UNTOLD)[0]) == here
    assert len(mirrors) == count


@pytest.mark.parametrize(
    ("steps", "shared"),
    [(2.5, Sharing(2, 2)), (1.5, Sharing(1, 2)), (0.99, Sharing(1, 2, trained=1))],
)
def test_a_large_model_has_one_history_too(problem, mirror, machine, steps, shared, monkeypatch):
    """One that would have two threads, and memory for so many steps of an adapter."""
    estimated = arena.footprint

    def of_a_large_model(*arguments):
        found = replace(estimated(*arguments), row=1e9)
        machine(cores=2, memory=(found.process + steps * found.adapter) / sharing.SHARE)
        return found

    monkeypatch.setattr(sharing, "SMALL", 0)
    monkeypatch.setattr(arena, "footprint", of_a_large_model)
    settings, said = {**UNTOLD, "generations": 1}, []
    alone, bench = search(problem, say=said.append, **settings)
    assert bench.sharing == shared
    assert any("memory does for 1 row" in line for line in said) == (steps < 1)
    found, bench = search(problem, workers=2, **settings)
    assert bench.sharing == shared
    assert outcome(found) == outcome(alone)


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, and of so many bytes of memory."""

    def of(cores, memory=2**40):
        monkeypatch.setattr(arena, "cores", lambda: cores)
        monkeypatch.setattr(arena, "memory_of_machine", lambda: memory)

    return of


@pytest.mark.parametrize(
    ("changes", "staff", "shard"),
    [
        ({}, Staff(), 2),
        ({}, Staff(workers="usual"), 2),
        ({}, Staff(workers=2), 2),
        ({"together": 4}, Staff(), None),
        ({"together": 4}, Staff(workers=2), 2),
        ({"device": "cuda"}, Staff(), None),
        ({"device": "cuda"}, Staff(workers="usual"), None),
        ({"device": "cuda"}, Staff(workers=2), 2),
    ],
)
def test_who_is_in_shards_unasked(monkeypatch, changes, staff, shard):
    monkeypatch.setattr(workers, "resolved", lambda name: "cpu" if name == "auto" else name)
    assert workers.usual_shard(UnlearnSettings(**changes), staff) == shard


def test_an_asynchronous_race_has_one_history_too(problem, mirror):
    settings = {**SETTINGS, "generations": 3, "asynchronous": True}
    alone, bench = search(problem, **settings)
    later = [each for each in alone.history if each.generation]
    out = [each for each in later if each.fate is Fate.RACED_OUT]
    rung = round(trials.RUNG * bench.steps(bench.searching, 2))
    assert {each.steps for each in out} == {rung}
    assert all("worse half of earlier ones" in each.reason for each in out)
    # Whoever drops out was above the median of those before, and nobody else was.
    for number in (1, 2):
        raced = [each for each in alone.history if each.details.get("rungs")]
        now = [each for each in raced if each.generation == number]
        before = [each for each in raced if each.generation == number - 1]
        if number == 2 and len(before) < settings["population"]:
            before += [each for each in raced if each.generation == 0]
        assert len(before) >= 4
        mark = sorted(each.details["rungs"][0] for each in before)[math.ceil(len(before) / 2) - 1]
        for each in now:
            assert (each.fate is Fate.RACED_OUT) == (each.details["rungs"][0] > mark)
            assert each.details["curve"][0] == [rung, -each.details["rungs"][0]]
    assert out
    assert outcome(search(problem, workers=1, **settings)[0]) == outcome(alone)


def test_workers_tune_alike(problem, mirror):
    settings = {**SETTINGS, "population": 3, "generations": 1, "finalists": 0, "racing": False,
                "local_search": "unrolled", "local_steps": 2}  # fmt: skip
    alone, bench = search(problem, **settings)
    assert max(each.steps for each in alone.history) > bench.steps(bench.searching, 2)
    assert outcome(search(problem, workers=1, **settings)[0]) == outcome(alone)


@pytest.mark.slow
def test_another_run_goes_on_with_workers_or_without(problem, here, mirror, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.stage == "training" and progress.generation == 2:
            raise Stop

    for name, first, then in (("a", {"workers": 3}, {}), ("b", {}, {"workers": 2})):
        with pytest.raises(Stop):
            search(problem, out=tmp_path / name, observer=stop, **first, **SETTINGS)
        assert outcome(resume(tmp_path / name, **then)[0]) == here
    assert len(mirrors) == 2


@pytest.mark.slow
def test_the_comparison_at_the_end_is_the_same_on_workers(problem, here, mirror, tmp_path):
    search(problem, out=tmp_path / "run", **{**SETTINGS, "finalists": 0, "generations": 1})
    with Store.open(tmp_path / "run", write=False) as store:
        bench = reopened(store)
        best = min(store.candidates(), key=lambda each: (each.error is None, each.error))
    found = FoundLoss(best, best.error, None)
    records = [
        conclude(bench, found, ["npo", "IdkDPO"], Effort(1), 1, None, staff=staff)
        for staff in (Staff(), Staff(workers=2))
    ]
    assert records[0] == records[1]
    assert len(records[0]["rows"]) == 3
    assert mirrors


# Faults


def test_a_loss_that_breaks_its_worker_fails_alone(problem, mirror, monkeypatch):
    settings = {**SETTINGS, "population": 4, "generations": 1, "finalists": 0, "method": "zoo",
                "racing": False}  # fmt: skip
    whole, _ = search(problem, workers=1, **settings)
    monkeypatch.setattr(Mirror, "deadly", ("logsigmoid",))
    found, _ = search(problem, workers=1, **settings)
    bad = [each.id for each in found.history if each.fate is Fate.FAILED]
    assert len(bad) == 2  # NPO and SimNPO
    for one, other in zip(found.history, whole.history, strict=True):
        if one.id in bad:
            assert one.reason == "it ended the interpreter with status 7"
            assert one.error is None
        else:
            assert one.fate is other.fate
            assert one.error == pytest.approx(other.error, abs=1e-4)


@pytest.mark.slow
def test_processes_that_are_killed_change_nothing(problem, here, monkeypatch):
    pools, killed, over = [], [], threading.Event()
    made = staff_module.Pool

    def noted(*arguments):
        pools.append(made(*arguments))
        return pools[-1]

    monkeypatch.setattr(staff_module, "Pool", noted)

    def kill():
        """One of two, as soon as it has the model and is at work."""
        while not over.wait(0.02):
            for worker in list(pools[-1]._running) if pools else ():
                if worker.ready:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                        killed.append(worker.pid)
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = outcome(search(problem, workers=2, **SETTINGS)[0])
    finally:
        over.set()
        killer.join()
    assert killed
    assert found == here


# What is refused


def test_data_in_memory_say_what_to_do(problem, tmp_path):
    with pytest.raises(UserError, match=r"the data of '.*' lives in memory.*sets to files"):
        search(replace(problem, source=None), workers=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "0 workers: give at least 1"),
        ({"workers": 1, "ray": "local"}, "exclude each other"),
        ({"gpus_per_shard": 0.5}, "0.5 GPUs per shard are asked of Ray: add --ray"),
        ({"gpus_per_shard": 0.5, "workers": 2}, "add --ray"),
        ({"gpus_per_shard": 1.0, "workers": 2}, "1 GPU per shard is asked of Ray: add --ray"),
        ({"gpus_per_shard": 1.5, "ray": "local"}, "1.5 GPUs per shard: give a part of one"),
        ({"gpus_per_shard": -1.0, "ray": "local"}, "-1 GPUs per shard"),
        ({"gpus_per_shard": float("nan"), "ray": "local"}, "nan GPUs per shard"),
    ],
)
def test_workers_that_cannot_be_are_refused(problem, given, message):
    with pytest.raises(UserError, match=message):
        search(problem, **given, **SETTINGS)


@pytest.mark.parametrize(
    ("staff", "name", "found"),
    [
        (Staff(), "auto", "cuda"),
        (Staff(workers=2), "cuda:1", "cuda:1"),
        (Staff(workers=2), "cpu", "cpu"),
        (Staff(ray="local"), "cuda:1", "cpu"),
        (Staff(ray="local", gpus_per_shard=0.5), "cpu", "cuda"),
    ],
)
def test_the_models_of_this_process_are_on_the_device_of_the_settings(
    staff, name, found, monkeypatch
):
    """But with Ray, where it is as GPUs are asked of Ray."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(staff, UnlearnSettings(device=name)) == found


def test_a_search_and_its_resumption_load_the_model_where_they_are_told(
    problem, monkeypatch, tmp_path
):
    places = []
    load = bench_module.load_language

    def noted(name, device, precision):
        places.append(device)
        return load(name, "cpu", precision)

    few = {**SETTINGS, "population": 2, "generations": 1, "finalists": 0}
    search(problem, out=tmp_path / "run", **few)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(bench_module, "load_language", noted)
    resume(tmp_path / "run", problem=problem, device="cuda:1", generations=2)
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.settings["device"] == "cuda:1"
    search(problem, **few, device="cpu")
    assert list(dict.fromkeys(places)) == ["cuda:1", "cpu"]


def test_a_worker_that_is_promised_a_gpu_says_if_there_is_none(problem, mirror, monkeypatch):
    asked = []

    def cluster(recipe, address, shard, limits, gpus, journal):
        asked.append(gpus)
        return Mirror(recipe, 1, shard, limits)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("evoloss.execution.ray_cluster.RayCluster", cluster)
    with pytest.raises(UserError, match="a worker has no GPU that torch can use"):
        search(problem, ray="local", gpus_per_shard=0.5, **SETTINGS)
    assert asked == [0.5]
