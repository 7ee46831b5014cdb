"""The scripts in examples/, run as a reader runs them, only smaller."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import evoloss
from evoloss.lang.export.torch_source import torch_source

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SOURCE = str(Path(evoloss.__file__).parents[1])


def printed(script: Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script, "--quick"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric"), [("tabular", "balanced accuracy"), ("images", "error rate")]
)
def test_a_search_of_ones_own_prints_what_it_found(name, metric, tmp_path):
    text = printed(EXAMPLES / f"{name}.py", tmp_path, PYTHONPATH=SOURCE)
    [formula] = re.findall(r"^found: (.*\bf\b.*)$", text, re.MULTILINE)[:1]
    evoloss.parse(formula)
    for label in ("found", "usual", "4 × usual"):
        score = re.search(rf"^{label}: test {metric} ([\d.]+) ± [\d.]+$", text, re.MULTILINE)
        assert score
        assert 0 <= float(score[1]) <= 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_training_loop_needs_no_evoloss(tmp_path):
    (tmp_path / "evoloss.py").write_text("raise ImportError('the loop imports evoloss')")
    text = printed(EXAMPLES / "training_loop.py", tmp_path, PYTHONPATH=str(tmp_path))
    errors = dict(re.findall(r"^(.*): error ([\d.]+) ±", text, re.MULTILINE))
    assert set(errors) == {"found", "usual", "usual, 4 × the rate"}
    assert float(errors["found"]) < 0.5  # three arms: two thirds by chance


def test_the_loss_of_the_training_loop_is_as_exported():
    module = runpy.run_path(str(EXAMPLES / "loss.py"))
    formula = module["__doc__"].split("L(y, f) = ")[1].split("\n\n")[0]
    expression = evoloss.parse(" ".join(formula.split()))
    assert (EXAMPLES / "loss.py").read_text() == torch_source(expression, "softmax")
