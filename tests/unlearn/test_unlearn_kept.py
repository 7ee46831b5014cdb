"""What is kept in the cache: whole or not at all, by whoever is first, and damaged by nobody."""

import os
import threading
import time

import pytest
import torch

from evoloss.errors import UserError
from evoloss.unlearn import kept

pytest.importorskip("safetensors", reason="safetensors is not installed")

VALUES = torch.arange(6.0).view(2, 3)


@pytest.fixture(autouse=True)
def folder(cache):
    return cache / "unlearn"


def writer(text):
    def write(folder):
        folder.mkdir()
        (folder / "first").write_text(text)
        (folder / "second").write_text(text)

    return write


def never(*_):
    raise AssertionError("it has been made already")


def test_a_folder_is_made_once(folder):
    found = kept.folder("model", writer("a"))
    assert found == folder / "model"
    assert (found / "second").read_text() == "a"
    assert kept.folder("model", never) == found
    assert [each.name for each in folder.iterdir()] == ["model"]


def test_whoever_is_later_takes_what_the_first_has_made(folder):
    """Eight at once, none of which has finished before all have begun."""
    begun, found = threading.Barrier(8), []

    def write(number):
        def wait_and_write(folder):
            begun.wait(timeout=60)
            writer(number)(folder)

        return wait_and_write

    def take(number):
        folder = kept.folder("model", write(number))
        found.append({each.name: each.read_text() for each in folder.iterdir()})

    threads = [threading.Thread(target=take, args=(str(number),)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    first = found[0]["first"]
    assert found == [{"first": first, "second": first}] * 8
    assert [each.name for each in folder.iterdir()] == ["model"]


def test_what_is_broken_off_leaves_nothing_behind(folder):
    def stop(folder):
        folder.mkdir()
        (folder / "first").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.folder("model", stop)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_swept_up_a_day_later(folder):
    for name, hours in (("model.a.partial", 25), ("model.b.partial", 23), ("old", 25)):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").touch()
        then = time.time() - 3600 * hours
        os.utime(folder / name, (then, then))
    kept.folder("model", writer("a"))
    assert {each.name for each in folder.iterdir()} == {"model", "model.b.partial", "old"}


def test_a_folder_that_cannot_be_kept_says_what_to_do(no_cache, tmp_path):
    with pytest.raises(UserError, match="EVOLOSS_CACHE") as refused:
        kept.folder("model", never)
    text = str(refused.value)
    assert f"'{tmp_path / 'file' / 'cache'}' cannot be written to: " in text
    assert "\n" not in text


def test_a_tensor_is_computed_once(folder):
    assert torch.equal(kept.tensor("values", lambda: VALUES.T), VALUES.T)
    assert torch.equal(kept.tensor("values", never), VALUES.T)
    assert [each.name for each in folder.iterdir()] == ["values.safetensors"]


@pytest.mark.parametrize("left", [0, 1, -4])
def test_a_damaged_tensor_is_computed_anew(folder, left):
    kept.tensor("values", lambda: VALUES)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    assert torch.equal(kept.tensor("values", lambda: VALUES + 1), VALUES + 1)
    assert torch.equal(kept.tensor("values", never), VALUES + 1)


def test_a_tensor_that_cannot_be_kept_is_there_all_the_same(no_cache):
    for _ in range(2):
        assert torch.equal(kept.tensor("values", lambda: VALUES), VALUES)
