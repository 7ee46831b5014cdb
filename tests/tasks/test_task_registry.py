"""Names, files and functions as task specs; loading again what a stored run has noted."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from evoloss.errors import UserError
from evoloss.lang.parse import parse
from evoloss.tasks.registry import TASKS, load_task
from evoloss.tasks.task import Task

OWN_TASKS = """
import numpy as np
from evoloss.tasks.custom import supervised
def mine():
    x = np.random.default_rng(0).normal(size=(40, 3))
    return supervised(x, x[:, 0], network="linear", name="mine")
def number(): return 3
def fails(): raise RuntimeError("no luck")
"""


@pytest.fixture
def _own_tasks(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(OWN_TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])


def complaint(spec, **arguments):
    with pytest.raises(UserError) as caught:
        load_task(spec, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("spec", ["sine", "diabetes", "digits"])
def test_a_task_is_loaded_again_from_its_source(spec):
    task = load_task(spec, network="mlp:8", seed=3)
    again = load_task(**json.loads(json.dumps(task.source)))
    assert again.source == task.source
    assert again.network_name == "mlp:8"
    for each in ("search", "test"):
        first, second = (getattr(t.episodes, each)(0).held_out for t in (task, again))
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.y, second.y)


def test_a_file_is_found_again_from_another_directory(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez(tmp_path / "data.npz", x=x, y=x[:, 0])
    monkeypatch.chdir(tmp_path)
    task = load_task("data.npz")
    monkeypatch.chdir("/")
    assert torch.equal(load_task(**task.source).episodes.train.x, task.episodes.train.x)


def test_the_seed_decides_the_split_and_nothing_else_does():
    first, again, other = (
        load_task("digits", seed=seed, network=network).episodes.held_out_test.x
        for seed, network in ((0, None), (0, "linear"), (1, None))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.usefixtures("_own_tasks")
def test_a_users_function():
    task = load_task("own_tasks:mine")
    assert isinstance(task, Task)
    assert (task.name, task.network_name, task.source["spec"]) == (
        "mine", "linear", "own_tasks:mine"
    )  # fmt: skip
    assert load_task("own_tasks:mine", network="mlp:5").network()[0].out_features == 5
    assert "must return evoloss.Task" in complaint("own_tasks:number")
    assert "'own_tasks:fails()' failed: RuntimeError: no luck" in complaint("own_tasks:fails")
    assert "has no 'mind' (did you mean 'mine'?)" in complaint("own_tasks:mind")
    assert "has its own data: --target" in complaint("own_tasks:mine", target="a")


def test_usual_losses_parse():
    for spec in ("diabetes", "digits"):
        parse(load_task(spec).usual_loss)


def test_mistakes_are_told(tmp_path):
    assert "unknown task 'diabetis' (did you mean 'diabetes'?)" in complaint("diabetis")
    assert "no file 'houses.csv'" in complaint("houses.csv")
    assert "no file 'some/where'" in complaint("some/where")
    assert "no module 'nowhere_at_all'" in complaint("nowhere_at_all:task")
    assert "unknown kind 'regresion'" in complaint("digits", kind="regresion")
    assert "--target and --drop-missing is for table files only" in complaint(
        "digits", target="a", drop_missing=True
    )
    assert "needs no files: leave --data-dir out" in complaint("digits", data_dir=tmp_path)
    assert "does not exist" in complaint("mnist", data_dir=tmp_path / "nowhere")
    assert "takes images" in complaint("digits", network="lenet5")


def test_names_and_descriptions_cost_no_torch():
    code = "import sys; from evoloss.tasks.registry import TASKS; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    assert all(line and "\n" not in line for line in TASKS.values())
