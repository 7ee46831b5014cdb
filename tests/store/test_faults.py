"""Faults that are really made: a full disk, a newer or cut store, clocks that jump, a slow disk."""

import hashlib
import os
import shutil
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


def process(*command: object) -> subprocess.CompletedProcess[str]:
    """A process that has ended."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT, timeout=600,
        check=False,
    )  # fmt: skip


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return process(sys.executable, *arguments)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`evoloss` in a process of its own."""
    return python("-m", "evoloss", *arguments)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "run.db").read_bytes()).hexdigest()


def driver(run, generations, before=""):
    """Source of a process that searches a toy task as a command does.

    before: what it does first.
    """
    return f"""
import sys; sys.path.insert(0, {TESTS!r})
import resource, signal
from pathlib import Path
from toy_search import searched
from evoloss import cli
{before}
cli.app = lambda arguments: searched(Path({str(run)!r}), generations={generations})
cli.main()
"""


def check_broken_off(done, run, generations):
    """One line that says what to do; whole generations are saved; the rest can be searched."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "what was saved before is safe: make room, then `evoloss resume" in done.stderr
    with Store.open(run, write=False) as store:
        assert 0 < store.generations < generations
        assert len(store.candidates()) == 5 * store.generations
    assert resumed(run).history == searched(generations=generations).history


def test_the_system_refuses_to_write_more_in_the_middle_of_a_commit(tmp_path):
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))"
    done = python("-c", driver(tmp_path / "run", 100, limit))
    check_broken_off(done, tmp_path / "run", 100)


def test_a_disk_is_full(tmp_path):
    """A disk of 120 KiB in memory, which only the process and its children see."""
    disk, code = tmp_path / "disk", tmp_path / "driver.py"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=120k none '{disk}'"
    if shutil.which("unshare") is None or subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("this user may not mount a file system in a namespace of its own")
    code.write_text(driver(disk / "run", 100))
    script = f"""{mount} || exit 99
'{sys.executable}' '{code}'; status=$?
cp -r '{disk}/run' '{tmp_path}/copy'
exit $status"""
    done = process("unshare", "-rm", "sh", "-c", script)
    assert list(disk.iterdir()) == []
    check_broken_off(done, tmp_path / "copy", 100)


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
        done = python("-c", code)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"is being written by process {os.getpid()}" in done.stderr
    assert digest(run) == before


def test_a_disk_whose_every_commit_takes_its_time(tmp_path, monkeypatch):
    """As one does that really writes before it says so."""
    waited = []

    class Slow(sqlite3.Connection):
        def execute(self, statement, *values):
            if statement == "COMMIT":
                time.sleep(0.05)
                waited.append(True)
            return super().execute(statement, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **options: connect(*given, factory=Slow, **options)
    )
    result = searched(tmp_path / "run", generations=8)
    assert len(waited) >= 8
    assert result.history == searched(generations=8).history
