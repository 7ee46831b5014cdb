"""Hypothesis draws the same examples in every run and times nothing; threads wait quietly."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from commands import Command, Outcome

settings.register_profile("evoloss", deadline=None, derandomize=True)
settings.load_profile("evoloss")

# As `import evoloss` sets it, but before a test module imports torch: threads that spin while they
# wait make small tensor operations ten times slower on a machine that has other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Read once, when a library first imports Triton: without a GPU its kernels run in the interpreter.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# What is imported while tests are collected stays: nobody has to look for garbage in it.
gc.disable()


def pytest_collection_modifyitems(items):
    """Files with slow tests are handed out first, so that no process is left alone with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def unlearning_folder(tmp_path_factory):
    """What a user has: the folder `model` and its `twin`, and the files of three sets."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    import fictional

    folder = tmp_path_factory.mktemp("fiction")
    fictional.saved(folder / "model", steps=40)
    fictional.saved(folder / "twin", steps=40, known=("retain",))
    for name in ("forget", "retain", "holdout"):
        fictional.rows_file(folder / f"{name}.jsonl", getattr(fictional.data(), name))
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """Small models are slower on several threads, and threads wait for each other beside a test."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """What is kept between processes is kept for the tests of one module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder, not made yet, where a test keeps what is its own alone."""
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """A cache that nobody can write to, be it root: it would be within a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVOLOSS_CACHE", str(tmp_path / "file" / "cache"))


@pytest.fixture
def evo(monkeypatch, capsys, tmp_path) -> Command:
    """Runs a command in an empty directory, on a wide page."""
    from evoloss import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["evoloss", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(exit.value.code, int)
        return Outcome(exit.value.code, out, err)

    return run


@pytest.fixture
def mirror(monkeypatch):
    """Workers without processes, for each of which transformers would have to be imported."""
    from evoloss.execution import staff
    from mirror import Mirror, mirrors

    monkeypatch.setattr(staff, "Pool", Mirror)
    monkeypatch.setattr(Mirror, "deadly", ())
    mirrors.clear()
    return Mirror
