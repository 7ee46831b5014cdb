"""`evoloss unlearn read`, in this process and, for standard input, in one of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evoloss.cli import app
from evoloss.errors import UserError

REPLY = '''<think>Let me see.</think>
<answer>
def loss_fn_1(log_probs_forget, log_probs_retain, ref_log_probs_forget=None, ref_log_probs_retain=None):
    """epochs: 3"""
    ratio = log_probs_forget - ref_log_probs_forget
    return F.softplus(0.123456789 * ratio).mean() - log_probs_retain.mean()

def loss_fn_2(log_probs_forget, log_probs_retain, ref_log_probs_forget=None, ref_log_probs_retain=None):
    """epochs: 1"""
    import os
    return log_probs_forget.mean()
</answer>
'''  # noqa: E501
FORMULA = "mean(softplus({}*(log_probs_forget - ref_log_probs_forget))) - mean(log_probs_retain)"


def run(*arguments: str):
    return CliRunner().invoke(app, ["unlearn", "read", *arguments])


@pytest.fixture
def reply(tmp_path):
    path = tmp_path / "reply.txt"
    path.write_text(REPLY, encoding="utf-8")
    return path


def test_each_function_as_mathematics_and_each_refusal_with_line_and_reason(reply):
    done = run(str(reply))
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "loss_fn_1, line 3, 3 epochs:",
        f"  {FORMULA.format('0.123457')}",
        "loss_fn_2, line 10: refused: the import of os: a loss needs torch and math only",
    ]


def test_json_is_exact(reply):
    first, second = json.loads(run(str(reply), "--json").output)
    exact = FORMULA.format("0.123456789")
    assert first == {"name": "loss_fn_1", "line": 3, "epochs": 3, "loss": exact}
    assert second["refused"].startswith("the import of os")


def test_standard_input_in_any_encoding_without_torch():
    script = ("import sys; from evoloss.cli import app; app(['unlearn', 'read', '-'], "
              "standalone_mode=False); assert 'torch' not in sys.modules")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"\xff\xfe" + REPLY.encode(), capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"loss_fn_1, line 3")


def test_the_example_of_the_documentation_prints_what_it_says(tmp_path):
    page = Path(__file__).resolve().parents[1] / "docs" / "unlearning.md"
    reply, shown = re.findall(r"^(?:~~~|```)text\n(.*?)^(?:~~~|```)$", page.read_text(),
                              re.DOTALL | re.MULTILINE)  # fmt: skip
    path = tmp_path / "reply.txt"
    path.write_text(reply)
    assert run(str(path)).output == shown


def test_nothing_found_and_nothing_there(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("Sorry.")
    assert "no loss function found" in run(str(empty)).output
    assert json.loads(run(str(empty), "--json").output) == []
    missing = run(str(tmp_path / "missing"))
    assert isinstance(missing.exception, UserError)
    assert "cannot read" in str(missing.exception)


def test_a_reply_without_end_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"a" * 5_000_000)
    assert "more than 200,000 characters" in run(str(path)).output
