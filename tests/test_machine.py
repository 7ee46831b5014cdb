"""What a container lets a process use of the machine."""

import os

import pytest

from evoloss import machine


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container with such files; `cores` finds out anew."""

    def of(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return machine.cores.__wrapped__(), machine.memory_of_machine()

    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    monkeypatch.delenv("EVOLOSS_THREADS", raising=False)
    return of


def test_without_a_container_it_is_the_machine(container, monkeypatch):
    assert container() == (8, 4_096_000)
    monkeypatch.setenv("EVOLOSS_THREADS", "3")
    assert container() == (3, 4_096_000)


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"cpu.max": "250000 100000\n", "memory.max": "1000000\n"}, 3, 1_000_000),
        ({"cpu.max": "50000 100000\n", "memory.max": "9000000\n"}, 1, 4_096_000),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, 8, 4_096_000),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n",
          "memory/memory.limit_in_bytes": "2000000\n"}, 2, 2_000_000),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n",
          "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8, 4_096_000),
        ({"cpu.max": "what\n", "memory.max": ""}, 8, 4_096_000),
    ],
    ids=["new", "wide", "open", "old", "old-open", "strange"],
)  # fmt: skip
def test_a_container_may_use_less(container, files, cores, memory):
    assert container(**files) == (cores, memory)
