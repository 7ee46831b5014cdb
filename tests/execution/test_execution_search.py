"""Searches on workers: the same history on any number of them, whoever is killed meanwhile."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from evoloss.cli import app
from evoloss.discovery import workers as workers_module
from evoloss.discovery.candidate import Fate
from evoloss.discovery.loop import Run
from evoloss.discovery.search import resume, search
from evoloss.discovery.settings import preset
from evoloss.discovery.supervised import Supervised
from evoloss.discovery.trainings import Trainings
from evoloss.discovery.workbench import Workbench
from evoloss.errors import UserError
from evoloss.execution import crew, journal
from evoloss.execution import staff as staff_module
from evoloss.execution.crew import Limits
from evoloss.execution.in_process import InProcess
from evoloss.store import Store
from mirror import Mirror, mirrors
from tiny import SEARCH, regression

SETTINGS = {**SEARCH, "population": 9, "generations": 2, "seed": 0}
KILLS = int(os.environ.get("EVOLOSS_KILLS", "1"))
"""How often workers and drivers are killed; docs/scaling.md has the long form of these tests."""


def outcome(result):
    """All that must not depend on workers, with every float in full."""
    worth = [(each.candidate, each.error, str(each)) for each in (result.best, *result.front)]
    return result.history, worth


def workers_left():
    """The worker processes of this one that still run (other tests leave helpers of Python's)."""
    found = set()
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            ours = int(fields[1]) == os.getpid() and fields[0] != "Z"
            if ours and b"evoloss.execution.worker" in (each / "cmdline").read_bytes():
                found.add(int(each.name))
    return found


@pytest.fixture(scope="module")
def plain():
    """A search in this process, on all of a generation at once."""
    return outcome(search("tiny:regression", **SETTINGS))


@pytest.fixture(scope="module")
def sharded():
    """A search in this process, in shards as on workers, with a network that is stacked."""
    return outcome(search("loadable:convolution", **SETTINGS))


# The same history


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_multilayer_perceptrons_have_the_history_of_a_search_without_workers(workers, plain):
    assert outcome(search("tiny:regression", workers=workers, **SETTINGS)) == plain
    assert not workers_left()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_other_networks_have_the_history_of_a_search_without_workers(workers, sharded):
    assert outcome(search("loadable:convolution", workers=workers, **SETTINGS)) == sharded


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("loadable:convolution", {"local_steps": 1, "fitness_steps": 5, "finalists": 0}),
        ("loadable:wide", {}),
        ("loadable:wide", {"asynchronous": True}),
        ("loadable:wide", {"unroll": 2}),
    ],
)
def test_shards_change_no_bit_whatever_the_seed(task, changes, mirror):
    """A worker of this process: same shards, same copies of the data, and no start to wait for."""
    settings = {**SETTINGS, "population": 13, **changes}
    for seed in range(3):
        given = {**settings, "seed": seed}
        assert outcome(search(task, workers=2, **given)) == outcome(search(task, **given))
    assert mirrors


def test_only_networks_whose_bits_depend_on_it_are_in_shards_without_workers(tmp_path):
    settings = {**SETTINGS, "population": 4, "generations": 1, "finalists": 0}
    for number, (task, given, expected) in enumerate([
        ("tiny:regression", {}, None),
        ("tiny:regression", {"stacking": "vmap"}, workers_module.SHARD),
        ("loadable:convolution", {}, workers_module.SHARD),
        ("loadable:convolution", {"shard": None}, None),
    ]):  # fmt: skip
        run = tmp_path / str(number)
        search(task, out=run, **{**settings, **given})
        with Store.open(run, write=False) as store:
            assert store.settings["shard"] == expected


@pytest.mark.slow
def test_a_distribution_of_tasks_is_shared_out_too():
    alone = outcome(search("tiny:few_shot", **SETTINGS))
    assert outcome(search("tiny:few_shot", workers=2, **SETTINGS)) == alone


def test_an_asynchronous_race_has_one_history_too(tmp_path):
    """Whoever trains, and broken off in a generation that has marks."""
    settings = {**SETTINGS, "generations": 3, "asynchronous": True}
    task = "loadable:convolution"
    here = outcome(search(task, **settings))
    raced = [each for each in here[0] if each.generation and each.fate is Fate.RACED_OUT]
    assert any("earlier ones" in each.reason for each in raced)

    def stop(progress):
        if progress.stage == "training" and progress.generation == 2:
            raise Stop

    with pytest.raises(Stop):
        search(task, workers=2, out=tmp_path, observer=stop, **settings)
    assert outcome(resume(tmp_path, workers=1)) == here


def test_in_an_asynchronous_race_no_state_of_a_training_leaves_its_worker(monkeypatch):
    calls = []

    class Watched(InProcess):
        def run(self, call, items, common, tick):
            answers = super().run(call, items, common, tick)
            calls.append((call, max(len(repr(each)) for each in (*items, *answers))))
            return answers

    bench = Workbench(regression(), preset("fast", asynchronous=True, **SETTINGS))
    Run(Supervised(bench, Watched(Trainings(bench), 4)), None, None).go()
    sizes = {call: size for call, size in calls if call == "race"}
    assert [call for call, _ in calls if call in ("train", "race")][3:4] == ["race"]
    assert 0 < sizes["race"] < 2_000


# Faults


class Stop(Exception):
    """Thrown into a search to break it off."""


class Killer:
    """Strikes some moments after each sign of progress, and ends the search when it has done so.

    So there is always something done between two kills, however busy the machine is. strike: kills
    what it finds, and says whether it did; kills: so often.
    """

    def __init__(self, strike, kills=KILLS):
        self.strike, self.kills, self.killed, self.rng = strike, kills, 0, random.Random(1)
        self.progressed, self.over = threading.Event(), threading.Event()

    def observer(self, progress):
        self.progressed.set()
        if progress.stage == "saved" and (self.killed >= self.kills or self.over.is_set()):
            raise Stop

    def run(self):
        try:
            self.go_on()
        finally:
            self.over.set()

    def go_on(self):
        while self.killed < self.kills and not self.over.is_set():
            if not self.progressed.wait(0.1) or self.over.wait(self.rng.uniform(0.0, 0.5)):
                continue
            self.progressed.clear()
            self.killed += self.strike()

    def search(self, out, **staff):
        """The search that is struck: its history, and how many generations it has."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            with pytest.raises(Stop):
                search("loadable:convolution", out=out, observer=self.observer,
                       **{**SETTINGS, "generations": 1000}, **staff)  # fmt: skip
        finally:
            self.over.set()
            thread.join()
        assert self.killed == self.kills
        with Store.open(out, write=False) as store:
            return store.candidates(), store.generations


def killed(pids):
    """Whether there was one of them to kill."""
    for pid in pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def test_workers_killed_at_random_moments_change_nothing(tmp_path, monkeypatch):
    pools, made = [], staff_module.Pool
    monkeypatch.setattr(
        staff_module, "Pool", lambda *given: pools.append(made(*given)) or pools[-1]
    )
    rng = random.Random(3)

    def strike():
        pids = pools[-1].pids if pools else []
        return killed(rng.sample(pids, len(pids)))

    found, generations = Killer(strike).search(tmp_path / "run", workers=2)
    assert not workers_left()
    assert found == in_shards(generations)


def in_shards(generations):
    """The history of an undisturbed search of so many generations in this process."""
    settings = {**SETTINGS, "generations": generations, "finalists": 0}
    return tuple(search("loadable:convolution", **settings).history)


@pytest.mark.slow
def test_a_candidate_that_ends_the_interpreter_fails_alone(monkeypatch):
    """At its first death: that it has a second try, the tests of the pool see."""
    monkeypatch.setattr(crew, "_TRIES", 1)
    settings = {**SETTINGS, "population": 6, "generations": 1, "finalists": 0}
    found = [search("loadable:deadly", workers=workers, **settings) for workers in (1, 2)]
    assert outcome(found[0]) == outcome(found[1])
    dead = [each for each in found[0].history if "status 7" in each.reason]
    assert dead
    assert all(each.fate in (Fate.FAILED, Fate.REJECTED) for each in dead)
    assert all(each.error is None for each in dead)
    assert any(each.fate is Fate.SCORED for each in found[0].history)


DRIVER = """
import sys
from pathlib import Path
from evoloss.discovery.search import resume, search
from evoloss.execution import journal
from test_execution_search import SETTINGS
journal.WORTH = 0.0
def told(progress):
    print(progress.stage, flush=True)
out, workers, generations = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if (out / "run.db").exists():
    resume(out, workers=workers, observer=told)
else:
    settings = {**SETTINGS, "generations": generations, "finalists": 0}
    search("loadable:convolution", out=out, workers=workers, observer=told, **settings)
"""


def test_a_killed_driver_goes_on_with_another_number_of_workers(tmp_path):
    """Each driver is killed some moments after a sign of life, the last one ends by itself."""
    rng, out, generations = random.Random(2), tmp_path / "run", 2 * KILLS + 1
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for attempt in range(KILLS + 1):
        command = [sys.executable, "-c", DRIVER, out, 1 + attempt % 3, generations]
        with subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE
        ) as driver:  # fmt: skip
            if attempt < KILLS:
                for _ in range(rng.randint(1, 20)):
                    if driver.stdout.readline() == b"saved\n":
                        break
                time.sleep(rng.uniform(0.0, 0.2))
                driver.kill()
            driver.communicate()
        assert driver.returncode == (-signal.SIGKILL if attempt < KILLS else 0)
    with Store.open(out, write=False) as store:
        assert store.candidates() == in_shards(generations)


def test_broken_off_within_a_generation_no_shard_is_done_twice(tmp_path, sharded, monkeypatch):
    monkeypatch.setattr(journal, "WORTH", 0.0)
    do, done = Trainings.do, []

    def breaking(self, call, items, common, tick):
        if len(done) == 9:
            done.append(None)
            raise Stop
        answers = do(self, call, items, common, tick)
        done.append((call, [each["loss"] for each in items], common.get("end")))
        return answers

    monkeypatch.setattr(Trainings, "do", breaking)
    with pytest.raises(Stop):
        search("loadable:convolution", out=tmp_path, **SETTINGS)
    kept = list((tmp_path / journal.FOLDER).iterdir())
    assert kept
    assert outcome(resume(tmp_path)) == sharded
    assert not (tmp_path / journal.FOLDER).exists()
    broken_off = done.index(None)
    resumed = done[broken_off + 1 :]
    assert all(each not in resumed for each in done[broken_off - len(kept) : broken_off])


@pytest.mark.slow
def test_a_resumed_run_takes_any_number_of_workers(tmp_path, sharded):
    def stop(progress):
        if progress.stage == "training" and progress.generation == 2:
            raise Stop

    with pytest.raises(Stop):
        search("loadable:convolution", workers=2, out=tmp_path, observer=stop, **SETTINGS)
    assert not workers_left()
    assert outcome(resume(tmp_path)) == sharded


# What is refused


def test_a_task_in_memory_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"'tiny' lives in memory.*'module:function'"):
        search(regression(), workers=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_workers_are_refused():
    with pytest.raises(UserError, match="0 workers: give at least 1"):
        search("tiny:regression", workers=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--worker-seconds", "5"], "add --workers N"),
        (["--workers", "2", "--worker-memory", "0"], "worker memory is 0"),
    ],
)
def test_limits_that_limit_nothing_are_refused(options, message):
    result = CliRunner().invoke(app, ["search", "diabetes", *options])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_a_shard_is_worked_on_by_the_gpu_that_is_set_aside_for_it(monkeypatch):
    """Whatever this process has; a worker that is promised one says if there is none."""
    recipes = []

    def cluster(recipe, address, shard, limits, gpus, journal):
        recipes.append((recipe.arguments["settings"]["device"], gpus))
        return Mirror(recipe, 1, shard, limits)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("evoloss.execution.ray_cluster.RayCluster", cluster)
    with pytest.raises(UserError, match="a worker has no GPU that torch can use"):
        search("tiny:regression", ray="local", gpus_per_shard=0.5, **SETTINGS)
    assert recipes == [("cuda", 0.5)]


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ("loadable:convolution", 5),
        ("loadable:convolution --population 9", 4),  # as many as shards
        ("loadable:convolution --workers 3", 3),
        ("loadable:convolution --workers 0", None),
        ("loadable:convolution --set shard=none", None),
        ("tiny:regression", None),
    ],
)
def test_networks_that_would_use_one_core_have_a_worker_on_each(
    options, workers, monkeypatch, tmp_path
):
    monkeypatch.setattr(workers_module, "cores", lambda: 5)
    hired, limits = [], []

    def searched(task, **arguments):
        hired.append(arguments.get("workers"))
        limits.append(arguments.get("limits", Limits()).seconds)
        raise Stop

    monkeypatch.setattr("evoloss.discovery.search.search", searched)
    result = CliRunner().invoke(app, ["search", *options.split(), "--out", str(tmp_path / "run")])
    assert isinstance(result.exception, Stop)
    assert hired == [workers]
    # A long training is no mistake of one who asked for no workers.
    unasked = workers is not None and "--workers" not in options
    assert limits == [math.inf if unasked else None]
    assert (f", {workers} workers, run" in result.output) == (workers is not None)


def test_a_resumed_run_has_workers_as_a_new_one(monkeypatch, tmp_path):
    monkeypatch.setattr(workers_module, "cores", lambda: 5)
    few = {**SETTINGS, "population": 2, "generations": 1, "local_search": "none", "finalists": 0}
    hired = []

    def resumed(run, **arguments):
        hired.append(arguments.get("workers"))
        raise Stop

    for name, shard in (("alone", {"shard": None}), ("sharded", {})):
        search("loadable:convolution", out=tmp_path / name, **few, **shard)
        monkeypatch.setattr("evoloss.discovery.search.resume", resumed)
        CliRunner().invoke(app, ["resume", str(tmp_path / name)])
    assert hired == [None, 2]  # as many as there are shards


@pytest.mark.slow
def test_the_command_line_takes_workers(tmp_path, plain):
    started = time.monotonic()
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items() if name != "seed"]
    result = CliRunner().invoke(
        app,
        ["search", "diabetes", "--workers", "2", "--out", str(tmp_path / "run"), "--quiet",
         "--eval-seeds", "1", *settings],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, started)
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.settings["shard"] == workers_module.SHARD
