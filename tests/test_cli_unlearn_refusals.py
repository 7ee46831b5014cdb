"""What the commands refuse of unlearning, each in a line that says what to do instead."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from commands import Outcome, refused
from evoloss import cli
from evoloss.cli.shared import comparing, say
from evoloss.discovery.candidate import Candidate
from evoloss.errors import UserError, unknown
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING
from evoloss.store import Store

LOSS = "mean(log_probs_forget)"
SEARCH = "unlearn search --model nowhere --forget f.jsonl --retain r.jsonl --against ga "
ASKING = "--proposer llm --llm-url http://localhost:1/v1 --llm-model small "


@pytest.fixture
def evo(evo):
    """Runs a command where there is an unlearning run, `run`, with one candidate."""
    candidate = Candidate(0, 0, 0, "initial", (), parse(LOSS, UNLEARNING), LOSS, error=0.5, steps=3)
    about = {
        "kind": "unlearning", "task": "mine", "network": "small", "metric": "balance",
        "higher_is_better": True, "output": "identity", "usual_loss": LOSS, "stacking": "loop",
    }  # fmt: skip
    settings = {"preset": "fast", "seed": 4, "generations": 9, "epochs": 3}
    with Store.create(
        Path("run"), task={"kind": "unlearning"}, settings=settings, about=about
    ) as s:
        s.commit(0, [candidate], {"training": 2.0})
    return evo


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("evaluate run --task diabetes", "run 'run' is one of unlearning, which has no --task:"),
        ("evaluate run --network linear", "no --network: leave it out"),
        ("evaluate run --steps 3", "no --steps: leave it out"),
        ("evaluate run --device foo", "device 'foo': give cpu, cuda, cuda:0 and so on, or auto"),
        ("evaluate run:0 --drop-missing", "no --drop-missing: leave it out"),
        ("evaluate npo --task diabetes", "the loss is one of unlearning, which has no --task:"),
        ("export run --transform softmax", "no --transform: leave it out"),
        ("export npo --transform softmax", "no --transform: leave it out"),
        ("resume run --device cuda:99", "device 'cuda:99': "),
        (SEARCH + "--device cuda:99", "device 'cuda:99': "),
        ("unlearn compare --demo --device gpu", "device 'gpu': give cpu, cuda, cuda:0"),
        ("resume run --eval-steps 3", "no --eval-steps: leave it out"),
        ("transfer run --task diabetes", "the loss of 'run' is one of unlearning, which no task"),
        ("export run:x", "'x' is no candidate id of 'run': give a number, as in run:0, or 'run'"),
        ("export run:", "'' is no candidate id of 'run'"),
        (SEARCH + "--two-phase", "--two-phase is given, but no language model is asked: leave it"),
        (SEARCH + "--llm-url http://localhost:1/v1", "--llm-url is given, but no language model"),
        (SEARCH + "--llm-model small", "--llm-model is given, but no language model is asked"),
        (SEARCH + "--llm-retries 0", "--llm-retries is given, but no language model is asked"),
        (SEARCH + ASKING + "--llm-timeout 0", "timeout 0.0 will not do: use 1 or more"),
        (SEARCH + ASKING + "--llm-retries -1", "retries -1 is negative: use 0 or more"),
        ("unlearn compare --demo --llm-timeout 9", "leave it out, or make the proposer llm"),
        (SEARCH + "--proposer zoo --llm-tokens 9", "or make the proposer llm or mixture"),
        ("unlearn compare my-run", "`evoloss evaluate my-run --against npo` compares"),
        ("compare my-run", "`evoloss evaluate my-run` compares a run's loss with the usual"),
        ("compare", "nothing to compare methods on: give --task"),
        ("unlearn compare --demo --two-phase", "--two-phase is given, but no language model is"),
        (
            SEARCH + "--proposer llm --llm-url http://localhost:1/v1 --llm-model m --max-cost 3",
            "--max-cost 3 needs prices: search with --llm-input-price and --llm-output-price",
        ),
    ],
)
def test_what_unlearning_has_no_use_for(evo, arguments, text):
    refused(evo(*arguments.split()), text)


def test_an_unlearning_loss_that_is_only_written_down(evo):
    done = evo("evaluate", LOSS)
    refused(done, "the expression is an unlearning loss", "`evoloss evaluate RUN --against npo`")
    assert evo("export", LOSS).status == 0, "it is what the error advises"
    refused(evo("evaluate", "npo"), "`evoloss evaluate RUN --against npo`")


@pytest.mark.parametrize("option", ["forget", "retain", "holdout", "retain-model", "data-dir"])
def test_an_empty_name_is_not_the_folder_one_is_in(evo, option):
    refused(evo(*SEARCH.split(), f"--{option}", ""), f"--{option} '' names nothing: give a name")


def test_whoever_is_in_quotes_gets_no_more_of_them():
    assert str(unknown("loss", "''", ["npo"])) == "unknown loss '': choose npo"
    assert str(unknown("loss", "np", ["npo"])) == "unknown loss 'np': did you mean 'npo'?"


def test_ctrl_c_tells_where_the_finished_part_is_only_if_there_is_one(tmp_path, capsys):
    for text in ("stopped; nothing is finished yet: run", "stopped; what is finished is in "):
        with pytest.raises(BaseException, match="130"), comparing(tmp_path / "cmp"):
            raise KeyboardInterrupt
        assert capsys.readouterr().err.startswith(text)
        (tmp_path / "cmp" / "run").mkdir(parents=True, exist_ok=True)


def test_control_characters_do_not_reach_the_terminal(evo, monkeypatch):
    page = StringIO()
    say(Console(file=page, highlight=False), "'\x1b[2J\x07\x9b[bold]' and a\nline\r")
    assert page.getvalue() == "'\\x1b[2J\\x07\\x9b[bold]' and a\nline\\r\n"

    def broken(*_, **__):
        raise UserError("no chat completion but '\x1b[31m'")

    monkeypatch.setattr(Store, "open", broken)
    refused(evo("show", "run"), r"no chat completion but '\x1b[31m'")


def test_a_closed_standard_input_is_told():
    code = "from evoloss.cli import main; main()"
    source = str(Path(cli.__file__).parents[2])
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" unlearn read - <&-', sys.executable, code],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    refused(Outcome(done.returncode, done.stdout, done.stderr), "is closed")
