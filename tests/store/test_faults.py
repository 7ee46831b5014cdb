"""Faults that are really made: a full disk, a newer or cut store, clocks that jump, a slow disk."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import evoloss
from evoloss.store import Store
from toy_search import resumed, searched

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(evoloss.__file__).parents[1])}
TESTS = str(Path(__file__).parents[1])


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`evoloss` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "evoloss", *map(str, arguments)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False,
    )  # fmt: skip


def digest(run: Path) -> str:
    return hashlib.sha256((run / "run.db").read_bytes()).hexdigest()


def test_the_system_refuses_to_write_more_in_the_middle_of_a_commit(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {TESTS!r})
import resource, signal
from toy_search import searched
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))
from evoloss import cli
from pathlib import Path
cli.app = lambda arguments: searched(Path({str(tmp_path / "run")!r}), generations=150)
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "what was saved before is safe: make room, then `evoloss resume" in done.stderr
    with Store.open(tmp_path / "run", write=False) as store:
        saved = store.candidates()
        assert 0 < store.generations < 150
        assert len(saved) == 5 * store.generations
    assert resumed(tmp_path / "run").history == searched(generations=150).history


@pytest.mark.parametrize("fault", ["newer", "cut"])
def test_a_store_that_cannot_be_read_is_left_as_it_is(tmp_path, fault):
    run = tmp_path / "run"
    searched(run, generations=10)
    if fault == "newer":
        with sqlite3.connect(run / "run.db") as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        expected = "has format 99"
    else:
        (run / "run.db").write_bytes((run / "run.db").read_bytes()[:-5000])
        expected = "restore it from a copy"
    before = digest(run)
    for arguments in (("show", run), ("resume", run)):
        done = command(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert expected in done.stderr
    assert digest(run) == before


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    expected = searched(generations=12)
    real, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 1e7)
    found = searched(tmp_path / "run", generations=12, max_seconds=1e4)
    assert found.history == expected.history
    assert found.ended == expected.ended
    assert all(0 <= each < 100 for each in found.budget.seconds.values())


def test_a_disk_that_lets_a_commit_wait(tmp_path):
    """Another connection has the file for a second, as a slow disk would."""
    run, waited = tmp_path / "run", []

    def hold() -> None:
        with sqlite3.connect(run / "run.db", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            waited.append(True)
            time.sleep(1.0)
            other.execute("ROLLBACK")
        other.close()

    def observer(progress) -> None:
        if progress.stage == "saved" and progress.generation == 3:
            thread.start()
            while not waited:
                time.sleep(0.01)

    thread = threading.Thread(target=hold)
    result = searched(run, observer, generations=8)
    thread.join()
    assert waited
    assert result.history == searched(generations=8).history


def test_a_second_driver_is_told_of_the_first(tmp_path):
    run = tmp_path / "run"
    searched(run, generations=3)
    before = digest(run)
    with Store.open(run, write=True):
        code = f"""
import sys; sys.path.insert(0, {TESTS!r})
from pathlib import Path
from toy_search import resumed
from evoloss import cli
cli.app = lambda arguments: resumed(Path({str(run)!r}))
cli.main()
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT,
            timeout=120, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"is being written by process {os.getpid()}" in done.stderr
    assert digest(run) == before
