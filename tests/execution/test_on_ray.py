"""Searches on a Ray cluster of this machine, against the same ones without it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_execution_pool import expected, gone, items, silent, sleepy
from test_execution_search import SETTINGS, Killer, in_shards, killed, outcome

from evoloss.cli.shared import with_address
from evoloss.discovery import workers as workers_module
from evoloss.discovery.candidate import Fate
from evoloss.discovery.search import search
from evoloss.errors import UserError
from evoloss.execution import attempts
from evoloss.execution.crew import Broken, Limits
from evoloss.execution.executor import Fault, Recipe
from evoloss.store import Store

ray = pytest.importorskip("ray", reason="ray is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

from evoloss.execution.ray_cluster import RayCluster  # noqa: E402

# Ray leaves files and sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
RECIPE = Recipe("troublesome:workplace", {})
SHARD = workers_module.SHARD
KILLS = int(os.environ.get("EVOLOSS_KILLS", "1"))
"""How often each thing is killed; docs/scaling.md has the long form of these tests."""


class Nodes:
    """A cluster of two nodes: one that this process is connected to, and one that may be lost."""

    def __init__(self):
        # So that a node that is lost is missed at once.
        noticing = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200,
                    "health_check_failure_threshold": 2}  # fmt: skip
        self.all = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "num_gpus": 2, "include_dashboard": False,
                            "_system_config": noticing},
        )  # fmt: skip
        ray.init(
            address=self.all.address, log_to_driver=False, logging_level="FATAL",
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                                      "EVOLOSS_THREADS": "1"}},
        )  # fmt: skip
        self.other = None
        self.add()

    def add(self):
        """The second node, if there is none; Ray wants this to be done by the main thread."""
        if self.other is None:
            self.other = self.all.add_node(num_cpus=1)

    def lose(self):
        """The second node by SIGKILL, with all that runs and lies there, if there is one."""
        if self.other is None:
            return False
        self.all.remove_node(self.other, allow_graceful=False)
        self.other = None
        return True

    def is_at_other(self, reference):
        """Whether the answer of a task is there, and is large enough to stay until it is asked."""
        ray.wait([reference], fetch_local=False)
        where = ray.experimental.get_object_locations([reference])[reference]
        return self.other is not None and where["node_ids"] == [self.other.node_id]


@pytest.fixture(scope="module")
def cluster():
    """Two processors on two nodes, and two GPUs in name, for all of this module."""
    nodes = Nodes()
    yield nodes
    ray.shutdown()
    nodes.all.shutdown()


@contextlib.contextmanager
def crew(gpus=0.0, **limits):
    made = RayCluster(RECIPE, "local", SHARD, Limits(**limits), gpus)
    try:
        yield made
    finally:
        made.close()


def test_it_answers_as_this_process_does(cluster):
    shares = []
    with crew() as made:
        assert made.run("square", items(), {}, shares.append) == expected(items())
        assert made.run("square", [], {}, silent) == []
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("exit", "it ended the interpreter with status 3"),
        ("crash", "it ended the interpreter by SIGSEGV"),
        ("ask_for_too_much", "it ran out of memory"),
    ],
)
def test_who_breaks_its_worker_is_found(cluster, trouble, reason):
    with crew() as made:
        found = made.run("square", items(at_3=trouble), {}, silent)
    assert found[3] == Fault(reason)
    assert [each["square"] for at, each in enumerate(found) if at != 3] == [
        x * x for x in range(10) if x != 3
    ]


def test_who_hangs_is_ended_with_the_children_it_started(cluster, tmp_path):
    chosen = items(4, at_1="hang")
    chosen[1]["file"] = str(tmp_path / "pid")
    with crew(seconds=1.0) as made:
        found = made.run("square", chosen, {}, silent)
    assert [isinstance(each, Fault) for each in found] == [False, True, False, False]
    assert "longer than 1 s" in found[1].reason
    assert gone([int((tmp_path / "pid").read_text())])


def test_who_eats_memory_is_stopped(cluster):
    with crew(memory=200 * 2**20) as made:
        found = made.run("square", items(2, at_1="eat"), {}, silent)
    assert found == [{"square": 0, "together": 1}, Fault("it took more than 0.195 GiB of memory")]


def test_who_is_late_is_overtaken(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "_PATIENCE", 0.5)
    with crew() as made:
        found = made.run("square", sleepy(tmp_path / "pid"), {}, silent)
    assert found == expected(items())
    assert gone([int((tmp_path / "pid").read_text())])


def test_a_hundred_megabytes_of_output_go_nowhere(cluster, capfd):
    before = log_size()
    with crew() as made:
        assert made.run("square", items(1, at_0="talk"), {}, silent)[0]["square"] == 0
    assert capfd.readouterr() == ("", "")
    assert log_size() - before < 2**24


def log_size():
    """Bytes of the files that Ray writes."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return sum(each.stat().st_size for each in logs.rglob("*") if each.is_file())


def test_a_mistake_and_a_bug_are_raised_here(cluster):
    with crew() as made, pytest.raises(UserError, match="x is wrong: give another"):
        made.run("square", items(at_3="mistake"), {}, silent)
    with crew() as made, pytest.raises(Broken, match="ValueError: a bug"):
        made.run("square", items(at_3="bug"), {}, silent)


def test_answers_that_are_lost_with_their_node_are_found_again(cluster, monkeypatch):
    """They are done, and not yet fetched."""
    real, lock, lost, raised = ray.get, threading.Lock(), [], []

    def get(reference):
        with lock:
            if not lost and cluster.is_at_other(reference):
                cluster.lose()
                lost.append(reference)
        try:
            return real(reference)
        except ray.exceptions.ObjectLostError as error:
            raised.append(error)
            raise

    monkeypatch.setattr(ray, "get", get)
    cluster.add()
    begun = time.monotonic()
    with crew() as made:
        while not lost and time.monotonic() < begun + 60:  # until the new node has a process
            found = made.run("ballast", items(8), {}, silent)
    assert lost
    assert raised
    assert [each.shape for each in found] == [(2**15,)] * 8
    assert [each.max() for each in found] == list(range(8))


def placed(gpus):
    """Of the workers of two shards, what Ray gave them."""
    with crew(gpus) as made:
        found = made.run("resources", items(2 * SHARD), {}, silent)
    return found[0], found[-1]


def test_each_shard_has_the_gpus_that_it_asks_for(cluster):
    """As Ray counts them: what a task does with a real one is not tested here."""
    assert {task["seen"] for task in placed(0.5)} <= {"0", "1"}
    one, other = sorted(placed(2), key=lambda task: task["from"])
    assert sorted(one["seen"].split(",")) == sorted(other["seen"].split(",")) == ["0", "1"]
    assert one["to"] <= other["from"]  # there are two in all
    assert one["pid"] == other["pid"], "who has loaded a model keeps it"
    assert [task["seen"] for task in placed(0)] == ["", ""]


def test_more_gpus_than_there_are_is_told(cluster):
    with pytest.raises(UserError, match="3 GPUs per shard, but Ray sees 2 on this machine"):
        RayCluster(RECIPE, "local", SHARD, None, 3.0)


@pytest.mark.slow
def test_a_search_has_the_same_history(cluster):
    found = outcome(search("loadable:convolution", ray="local", **SETTINGS))
    assert found == outcome(search("loadable:convolution", shard=SHARD, **SETTINGS))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "cache")
def test_an_unlearning_search_has_the_same_history(cluster, unlearning_folder):
    from evoloss.unlearn.problem import load_problem
    from evoloss.unlearn.search import search

    files = {role: str(unlearning_folder / f"{role}.jsonl") for role in ("forget", "retain")}
    problem = load_problem(str(unlearning_folder / "model"), **files)
    settings = {"population": 3, "generations": 1, "epochs": 2, "batch": 3, "lr": 4e-3, "rank": 2,
                "texts": 2, "finalists": 0, "shard": 2}  # fmt: skip
    here, _ = search(problem, **settings)
    found, _ = search(problem, ray="local", **settings)
    assert any(each.fate is Fate.SCORED for each in here.history)
    assert (found.history, found.best.error) == (here.history, here.best.error)


@pytest.mark.slow
def test_killed_processes_and_nodes_change_nothing(cluster, tmp_path):
    """In turn: a process of Ray, what works for it, and a node with all of it."""

    class Mending(Killer):
        def observer(self, progress):
            cluster.add()
            super().observer(progress)

    strikes = (lambda: killed(running(b"ray::_work")), lambda: killed(workers()), cluster.lose)
    killer = Mending(lambda: strikes[killer.killed % 3](), 3 * KILLS)
    found, generations = killer.search(tmp_path / "run", ray="local")
    assert found == in_shards(generations)


def workers():
    return running(sys.executable.encode() + b"\0-m\0evoloss.execution.worker")


def running(command):
    """The processes of this machine whose command starts so."""
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (each / "cmdline").read_bytes().startswith(command):
                found.append(int(each.name))
    return found


DRIVER = """
import sys
from pathlib import Path
from evoloss.discovery.search import resume, search
from test_execution_search import SETTINGS
out, generations, staff = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
staff = {"ray": "local"} if staff == "ray" else {"workers": 2}
if (out / "run.db").exists():
    resume(out, **staff)
else:
    settings = {**SETTINGS, "generations": generations, "finalists": 0}
    search("loadable:convolution", out=out, **staff, **settings)
"""


@pytest.mark.slow
def test_when_its_node_dies_the_run_goes_on_and_then_elsewhere(tmp_path):
    """A driver after the other is left without its node, the last one has workers of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    out = tmp_path / "run"
    losses = max(1, KILLS // 2)  # they take long: Ray is started, and ends what lost its node
    command = [sys.executable, "-c", DRIVER, str(out), str(2 * losses + 1)]
    for _ in range(losses):
        lose_the_node(command, environment, out)
    subprocess.run([*command, "workers"], env=environment, capture_output=True, check=True)
    with Store.open(out, write=False) as store:
        assert store.candidates() == in_shards(2 * losses + 1)


def lose_the_node(command, environment, out):
    """Starts a driver, kills its node once it has done a generation, and sees it end."""
    before = generations(out)
    driver = subprocess.Popen(
        [*command, "ray"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while generations(out) == before and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        nodes = raylets(driver.pid)
        assert nodes
        for each in nodes:
            os.kill(each, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.communicate(timeout=30)  # Ray ends a driver that has lost its node, or we do
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() != 0
    assert gone(nodes)


def generations(out):
    if not (out / "run.db").exists():
        return 0
    with contextlib.suppress(UserError), Store.open(out, write=False) as store:
        return store.generations
    return 0


def raylets(driver):
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == driver and b"raylet" in (each / "cmdline").read_bytes().split(b"\0")[0]:
                found.append(int(each.name))
    return found


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match=r"no Ray cluster at '127.0.0.1:1' .*ray start --head"):
        search("loadable:convolution", ray="127.0.0.1:1", **SETTINGS)


def refuse(**options):
    raise ConnectionError("nobody answers")


def test_workers_and_ray_exclude_each_other():
    with pytest.raises(UserError, match="exclude each other"):
        search("loadable:convolution", ray="local", workers=2, **SETTINGS)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("search --ray", "search --ray local"),
     ("search --ray diabetes", "search --ray local diabetes"),
     ("search --ray auto diabetes", "search --ray auto diabetes"),
     ("search --ray 10.0.0.1:6379 x", "search --ray 10.0.0.1:6379 x"),
     ("search x --ray --quiet", "search x --ray local --quiet"), ("search x", "search x")],
)  # fmt: skip
def test_an_address_may_be_left_out(given, wanted):
    assert with_address(given.split()) == wanted.split()
