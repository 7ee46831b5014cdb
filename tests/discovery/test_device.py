"""Which device a search takes, and what it says of one that is not there."""

import pytest
import torch

from evoloss.discovery.settings import Settings
from evoloss.engine.device import nearest, resolved
from evoloss.errors import UserError


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=f"device '{name}': give cpu, cuda"):
        Settings(device=name)


@pytest.mark.parametrize("name", ["cpu", "auto", "cuda", "cuda:1"])
def test_names_are_kept_as_they_are(name):
    assert Settings.from_json(Settings(device=name).to_json()).device == name


def without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def with_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_gpu(monkeypatch):
    without_a_gpu(monkeypatch)
    assert resolved("auto") == resolved("cpu") == nearest("cuda") == "cpu"
    with pytest.raises(UserError, match="torch finds no GPU"):
        resolved("cuda")


def test_with_one_gpu(monkeypatch):
    with_gpus(monkeypatch, 1)
    with pytest.raises(UserError, match="device 'cuda:1': the only GPU is cuda:0"):
        resolved("cuda:1")


def test_with_two_gpus(monkeypatch):
    with_gpus(monkeypatch, 2)
    assert resolved("auto") == "cuda"
    assert resolved("cuda:1") == nearest("cuda:1") == "cuda:1"
    with pytest.raises(UserError, match="device 'cuda:2': the last of the 2 GPUs is cuda:1"):
        resolved("cuda:2")


def test_other_settings_of_a_device_are_checked():
    with pytest.raises(UserError, match="memory is 0 GiB: give a number above 0"):
        Settings(memory=0.0)
    with pytest.raises(UserError, match="bf17"):
        Settings(precision="bf17")
