"""What is kept of a generation in work, and who need not be asked again."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from evoloss.execution import journal as journal_module
from evoloss.execution.executor import Fault
from evoloss.execution.in_process import InProcess
from evoloss.execution.journal import Journal

ANSWER = {"weights": {"a": np.array([[0.1, np.nan], [3.0, -0.0]], np.float32)}, "step": 7}


@pytest.fixture(autouse=True)
def all_is_worth_it(monkeypatch):
    monkeypatch.setattr(journal_module, "WORTH", 0.0)


class Asked:
    """Work that counts how often it is done."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.times = 0

    def __call__(self):
        self.times += 1
        return self.answers


def same(found, wanted):
    [found], [wanted] = found, wanted
    assert found["step"] == wanted["step"]
    one, other = found["weights"]["a"], wanted["weights"]["a"]
    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


ITEMS = [{"loss": "f", "state": np.arange(3.0)}]
COMMON = {"begin": 0, "share": 0.1}


def test_who_resumes_need_not_ask_again(tmp_path):
    work = Asked(ANSWER)
    same(Journal(tmp_path / "j").through("train", ITEMS, COMMON, work), [ANSWER])
    same(Journal(tmp_path / "j").through("train", ITEMS, COMMON, work), [ANSWER])
    assert work.times == 1


@pytest.mark.parametrize(
    ("call", "items", "common"),
    [
        ("tune", ITEMS, COMMON),
        ("train", [{**ITEMS[0], "state": np.arange(3.0) + 1e-16}], COMMON),
        ("train", [{**ITEMS[0], "state": np.arange(3.0, dtype=np.float32)}], COMMON),
        ("train", ITEMS * 2, COMMON),
        ("train", ITEMS, {**COMMON, "share": 0.1 + 1e-16}),
    ],
)
def test_whatever_else_is_asked_is_answered_anew(tmp_path, call, items, common):
    Journal(tmp_path).through("train", ITEMS, COMMON, Asked(ANSWER))
    work = Asked(ANSWER)
    Journal(tmp_path).through(call, items, common, work)
    assert work.times == 1


def test_what_is_stored_is_forgotten(tmp_path):
    folder, work = tmp_path / "j", Asked(ANSWER)
    kept = Journal(folder)
    kept.clear()
    kept.through("train", ITEMS, COMMON, work)
    kept.clear()
    assert not folder.exists()
    kept.through("train", ITEMS, COMMON, work)
    assert work.times == 2
    Journal(folder).clear()
    assert not folder.exists()


@pytest.mark.parametrize("damage", [b"", b"x" * 40, None])
def test_a_damaged_file_is_not_taken(tmp_path, damage):
    Journal(tmp_path).through("train", ITEMS, COMMON, Asked(ANSWER))
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    work = Asked(ANSWER)
    same(Journal(tmp_path).through("train", ITEMS, COMMON, work), [ANSWER])
    assert work.times == 1


@pytest.mark.parametrize("answer", [Fault("it hangs"), {"state": torch.ones(2)}])
def test_a_fault_and_what_is_no_plain_data_are_not_kept(tmp_path, answer):
    work = Asked(answer)
    for _ in range(2):
        assert Journal(tmp_path).through("train", ITEMS, COMMON, work) == [answer]
    assert work.times == 2
    assert not list(tmp_path.iterdir())


def test_what_is_soon_done_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "WORTH", 60.0)
    Journal(tmp_path / "j").through("train", ITEMS, COMMON, Asked(ANSWER))
    assert not (tmp_path / "j").exists()


def test_without_room_the_work_is_done_all_the_same(tmp_path, monkeypatch):
    for name, least in (("_SPARED", 1 << 62), ("_MOST", 100)):
        with monkeypatch.context() as changed:
            changed.setattr(journal_module, name, least)
            same(Journal(tmp_path / "j").through("train", ITEMS, COMMON, Asked(ANSWER)), [ANSWER])
        assert not (tmp_path / "j").exists()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    same(Journal(tmp_path / "k").through("train", ITEMS, COMMON, Asked(ANSWER)), [ANSWER])


class Squares:
    """A workplace that breaks down at a number, once."""

    def __init__(self, at):
        self.at = at
        self.done = []

    def do(self, call, items, common, tick):
        if self.at in items:
            self.at = None
            raise KeyboardInterrupt
        self.done += items
        return [each * each for each in items]


def test_of_a_call_that_is_broken_off_only_the_shard_in_work_is_lost(tmp_path):
    work, numbers = Squares(at=7), list(range(12))
    with pytest.raises(KeyboardInterrupt):
        InProcess(work, 3, Journal(tmp_path)).run("square", numbers, {}, lambda share: None)
    again = InProcess(work, 3, Journal(tmp_path))
    assert again.run("square", numbers, {}, lambda share: None) == [n * n for n in numbers]
    assert work.done == numbers
