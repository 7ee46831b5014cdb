"""The pool of workers against work that hangs, eats, crashes and talks, and against SIGKILL."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.errors import UserError
from evoloss.execution import attempts
from evoloss.execution import pool as pool_module
from evoloss.execution.crew import Broken, Death, Killed, Limits
from evoloss.execution.executor import Fault, Recipe, shards
from evoloss.execution.in_process import InProcess
from evoloss.execution.pool import Pool, usual_workers
from evoloss.execution.process import Worker
from evoloss.execution.wire import receive, send
from troublesome import Workplace

RECIPE = Recipe("troublesome:workplace", {})
KILLS = int(os.environ.get("EVOLOSS_KILLS", "3"))
"""How often workers are killed; docs/scaling.md has the long form of these tests."""


def silent(share):
    pass


def items(count=10, **troubles):
    """So many items; troubles: `at_3="exit"` for the one with x = 3."""
    found = [{"x": x} for x in range(count)]
    for name, trouble in troubles.items():
        found[int(name.removeprefix("at_"))]["trouble"] = trouble
    return found


@contextlib.contextmanager
def pool(workers=2, shard=4, **limits):
    made = Pool(RECIPE, workers, shard, Limits(**limits))
    try:
        yield made
    finally:
        made.close()


def test_more_workers_than_memory_does_for_are_refused():
    with pytest.raises(UserError, match=r"^1000000 workers are too many .*: give at most \d+$"):
        Pool(RECIPE, 1_000_000, None)


@pytest.mark.parametrize(
    ("cores", "shards", "gigabytes", "count"),
    [
        (4, 9, 64, 4),
        (9, 4, 64, 4),
        (9, 9, 4, 3),
        (1, 9, 64, None),
        (9, 1, 64, None),
        (9, 9, 1, None),
    ],
)
def test_the_usual_number_of_workers_is_what_cores_shards_and_memory_do_for(
    cores, shards, gigabytes, count, monkeypatch
):
    monkeypatch.setattr(pool_module, "memory_of_machine", lambda: gigabytes * 2**30)
    assert usual_workers(cores, shards) == count


def alive(pid):
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=10.0):
    """Whether all of them end within some seconds."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def expected(chosen, shard=4):
    return InProcess(Workplace(), shard).run("square", chosen, {}, silent)


# Parts


@given(st.integers(0, 200), st.none() | st.integers(1, 30))
def test_shards_cover_all_in_order_and_are_level(count, size):
    found = shards(count, size)
    assert [number for part in found for number in part] == list(range(count))
    lengths = [len(part) for part in found]
    if lengths:
        assert min(lengths) > 0
        assert max(lengths) <= (size or count)
        assert max(lengths) - min(lengths) <= 1
        assert len(found) >= (1 if size is None else min(count, 4)), "work for several workers"


@given(st.lists(st.floats(width=32)), st.lists(st.floats()))
def test_numbers_arrive_bit_for_bit(small, large):
    from multiprocessing import Pipe

    here, there = Pipe()
    sent = {"a": [np.array(small, dtype=np.float32).reshape(1, -1)], "b": large, "c": None}
    send(here, sent)
    found = receive(there)
    assert found["a"][0].dtype == np.float32
    assert found["a"][0].shape == (1, len(small))
    assert found["a"][0].tobytes() == sent["a"][0].tobytes()
    # Not a number arrives as one, without the bits that nobody looks at.
    assert np.isnan(found["b"]).tolist() == np.isnan(large).tolist()
    assert (
        np.array([x for x in found["b"] if x == x]).tobytes()
        == np.array([x for x in large if x == x]).tobytes()
    )


def test_what_is_no_plain_data_is_not_sent():
    from multiprocessing import Pipe

    with pytest.raises(TypeError, match="Workplace is not plain data"):
        send(Pipe()[0], {"a": Workplace()})


# Answers


def test_any_number_of_workers_answers_as_this_process_does():
    for workers in (1, 3):
        with pool(workers) as made:
            assert made.run("square", items(), {}, silent) == expected(items())
            assert made.run("square", items(3), {}, silent) == expected(items(3))
            assert made.run("square", [], {}, silent) == []


def test_progress_is_told_and_ends_at_the_whole():
    shares = []
    with pool() as made:
        made.run("square", items(), {}, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_mistake_and_a_bug_are_raised_here():
    with pool() as made, pytest.raises(UserError, match="x is wrong: give another"):
        made.run("square", items(at_3="mistake"), {}, silent)
    with pool() as made, pytest.raises(Broken, match="ValueError: a bug"):
        made.run("square", items(at_3="bug"), {}, silent)


def test_after_a_mistake_other_work_is_done():
    with pool() as made:
        for _ in range(2):
            with pytest.raises(UserError, match="give another"):
                made.run("square", items(at_0="mistake", at_9="mistake"), {}, silent)
        assert made.run("square", items(), {}, silent) == expected(items())


def test_a_workplace_that_cannot_be_made_is_told():
    made = Pool(Recipe("troublesome:nothing", {}), 1, 4)
    with pytest.raises(UserError, match="has no 'nothing'"):
        made.run("square", items(), {}, silent)


# Faults


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("exit", "it ended the interpreter with status 3"),
        ("crash", "it ended the interpreter by SIGSEGV"),
        ("ask_for_too_much", "it ran out of memory"),
    ],
)
def test_who_breaks_a_worker_is_found_and_the_others_are_answered(trouble, reason):
    chosen = items(at_5=trouble)
    with pool() as made:
        found = made.run("square", chosen, {}, silent)
        assert found[5] == Fault(reason)
        assert found[:5] + found[6:] == [
            # Its shard, 5 and 6, is done once more without it.
            {"square": x**2, "together": together}
            for x, together in enumerate((2, 2, 3, 3, 3, 0, 1, 3, 3, 3))
            if x != 5
        ]
        assert made.run("square", items(), {}, silent) == expected(items())


def test_two_culprits_of_one_shard_are_both_found():
    with pool() as made:
        found = made.run("square", items(at_3="exit", at_5="exit"), {}, silent)
    assert [isinstance(each, Fault) for each in found] == [x in (3, 5) for x in range(10)]


def test_who_hangs_is_killed_with_the_children_it_started(tmp_path):
    chosen = items(3)
    chosen[1] |= {"trouble": "hang", "file": str(tmp_path / "pid")}
    with pool(seconds=0.5) as made:
        found = made.run("square", chosen, {}, silent)
        assert found[1].reason.startswith("it took longer than")
        assert [found[0]["square"], found[2]["square"]] == [0, 4]
        assert gone([int((tmp_path / "pid").read_text())])


def test_who_eats_memory_is_stopped():
    with pool(memory=400 * 2**20) as made:
        found = made.run("square", items(4, at_2="eat"), {}, silent)
    assert found[2] == Fault("it took more than 0.391 GiB of memory")
    assert [each["square"] for each in (found[0], found[1], found[3])] == [0, 1, 9]


def sleepy(file, count=10):
    """Items, one of which the first worker that has it falls asleep over."""
    chosen = items(count, at_1="sleep")
    chosen[1]["file"] = str(file)
    return chosen


def test_who_is_late_is_overtaken(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "_PATIENCE", 0.5)
    chosen, shares = sleepy(tmp_path / "pid"), []
    with pool() as made:
        assert made.run("square", chosen, {}, shares.append) == expected(items())
        assert gone([int((tmp_path / "pid").read_text())])
        assert made.run("square", items(), {}, silent) == expected(items())
    assert shares == sorted(set(shares)), "no shard is counted twice"
    assert shares[-1] == 1.0


def test_only_the_idle_overtake(monkeypatch):
    monkeypatch.setattr(attempts, "_PATIENCE", 0.0)
    monkeypatch.setattr(attempts, "_LOOK", 0.01)
    parts, begun = shards(12, 2), []

    def work(attempt):
        begun.append(attempt.part)
        if begun.count(parts[0]) == 1 and attempt.part == parts[0]:
            assert attempt.off.wait(60)
        time.sleep(0.02)
        return list(attempt.part)

    with ThreadPoolExecutor(2) as threads:
        given = attempts.Attempts(threads, 2, work, lambda attempt: attempt.off.set())
        found = list(given.answered(parts))
    assert begun == [*parts, parts[0]]  # after all others have been handed out
    assert found == [(part, list(part)) for part in (*parts[1:], parts[0])]


def test_a_hundred_megabytes_of_output_go_nowhere(capfd):
    with pool(1) as made:
        assert made.run("square", items(1, at_0="talk"), {}, silent)[0]["square"] == 0
        (worker,) = made._running
        assert 0 < len(worker.said) <= 2**16
    assert capfd.readouterr() == ("", "")


def test_a_shard_that_breaks_only_as_a_whole_is_taken_in_parts():
    with pool(1) as made:
        found = made.run("fragile", items(9), {}, silent)
    # The last shard, of three, is taken as one and two.
    wanted = (2, 2, 2, 2, 2, 2, 1, 2, 2)
    assert found == [{"square": x**2, "together": each} for x, each in enumerate(wanted)]


def test_workers_killed_at_random_moments_lose_and_change_nothing():
    """Struck some moments after each shard that is done, however slowly workers start."""
    chosen, rng, over = items(40), random.Random(0), threading.Event()
    progressed, killed = threading.Event(), []

    def kill(made):
        while not over.is_set():
            if not progressed.wait(0.1) or over.wait(rng.uniform(0.0, 0.5)):
                continue
            progressed.clear()
            for pid in rng.sample(made.pids, min(1, len(made.pids))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    with pool(3) as made:
        killer = threading.Thread(target=kill, args=(made,))
        killer.start()
        try:
            while len(killed) < KILLS:
                found = made.run("square", chosen, {"seconds": 0.6}, lambda share: progressed.set())
                assert found == expected(chosen)
        finally:
            over.set()
            killer.join()


# Leftovers

# Who starts a test run in the background of a shell has SIGINT ignored, and so have its children.
DRIVER = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from evoloss.execution.executor import Recipe
from evoloss.execution.pool import Pool, usual_workers
pool = Pool(Recipe("troublesome:workplace", {}), 2, 1)
items = [{"x": x, "trouble": "hang", "file": f"{sys.argv[1]}/{x}"} for x in range(2)]
threading.Timer(1.5, lambda: print(*pool.pids, flush=True)).start()
pool.run("square", items, {}, print)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_driver_that_is_killed_or_stopped(end, tmp_path):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    children = [int(each.read_text()) for each in tmp_path.iterdir()]
    assert all(map(alive, [*pids, *children]))
    driver.send_signal(end)
    driver.communicate(timeout=120)
    assert gone([*pids, *children])


def at_work(end):
    """What becomes of a worker at work that is ended so, and the seconds until that is known."""
    worker = Worker(RECIPE, {}, 2**33)
    job = {"call": "square", "items": items(1), "common": {}}
    worker.ask(job, 60)
    thread = threading.Timer(0.3, end, [worker])
    thread.start()
    begun = time.monotonic()
    with pytest.raises(Death) as raised:
        worker.ask({**job, "common": {"seconds": 60}}, 120)
    seconds = time.monotonic() - begun
    thread.join()
    worker.kill()
    return raised.value, seconds


def test_a_worker_whose_keeper_tells_it_late_was_killed_from_outside():
    """As on a machine with much to do."""

    def end(worker):
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
        os.kill(worker.pid, signal.SIGSTOP)
        os.kill(int(children), signal.SIGKILL)
        time.sleep(3.0)
        os.kill(worker.pid, signal.SIGCONT)

    death, seconds = at_work(end)
    assert isinstance(death, Killed)
    assert 3.0 < seconds < 15.0


def test_a_worker_that_the_driver_ends_is_not_waited_for():
    death, seconds = at_work(Worker.kill)
    assert isinstance(death, Killed)
    assert seconds < 10.0


def test_a_closed_pool_leaves_no_process():
    with pool(2) as made:
        made.run("square", items(), {}, silent)
        pids = made.pids
        assert pids
    assert gone(pids)
    with pytest.raises(UserError, match="closed"):
        made.run("square", items(), {}, silent)
