"""A run that was begun on one device goes on on another, and decides there what it would have here.

The other one is that of `second_device`, which computes on the CPU; networks are too few for CUDA's
other sums to matter, and no GPU is needed to see whether anything is left behind.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evoloss

TESTS = Path(__file__).parents[1]
SOURCE = Path(evoloss.__file__).parents[1]

SCRIPT = """
import json
import sys
from pathlib import Path
import second_device as two
import tiny

from evoloss.discovery import search as searching, workbench
from evoloss.discovery.search import resume, search
from evoloss.lang.text import to_text
from evoloss.store import Store

KIND, FOLDER = sys.argv[1:]
SETTINGS = {**tiny.SEARCH, "final_seeds": 1, "finalists": 2}
task = tiny.TASKS[KIND]()
# The names of devices are as they are; what 'cuda' stands for is the second device.
searching.resolved = lambda name: name
workbench.resolved = lambda name: "elsewhere:0" if name == "cuda" else name


def told(result):
    return [(each.fate, to_text(each.expression), each.error) for each in result.history]


whole = told(search(task, **{**SETTINGS, "generations": 3}))
search(task, out=FOLDER, **{**SETTINGS, "generations": 1})
with two.two_devices():
    bench = workbench.Workbench(task, searching._settings("fast", {"device": "cuda"}))
    there = [isinstance(bench.episodes.search(0).train.x, two.Elsewhere)]
    resume(FOLDER, task=task, device="cuda", generations=2)
with Store.open(Path(FOLDER), write=False) as store:
    there.append(store.settings["device"])
mixed = told(resume(FOLDER, task=task, device="cpu", generations=3))
print(json.dumps([whole, mixed, there]))
two.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_run_goes_on_elsewhere_and_comes_back_with_the_same_decisions(kind, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    environment.pop("TRITON_INTERPRET", None)  # losses there by torch operations, which is faster
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, kind, str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, mixed, there = json.loads(done.stdout)
    assert there == [True, "cuda"]
    assert len(whole) == 18
    assert [each[:2] for each in mixed] == [each[:2] for each in whole]
    errors = [(a[2], b[2]) for a, b in zip(mixed, whole, strict=True) if b[2] is not None]
    assert len(errors) > 5
    for found, wanted in errors:
        assert found == pytest.approx(wanted, rel=1e-4)
