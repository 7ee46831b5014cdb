"""The README's commands and its Python example, run as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("evoloss ")]


@pytest.mark.slow
def test_the_commands_work_one_after_the_other_and_the_exported_file_is_a_loss(evo, tmp_path):
    """In this process, which imports and compiles once what each of them needs."""
    assert len(commands()) >= 7
    for line in commands():
        done = evo(*shlex.split(line, comments=True)[1:])
        assert done.status == 0, f"{line}\n{done.out}\n{done.err}"
    example = blocks("python")[0] + "import torch; loss(torch.zeros(2, 10), torch.tensor([1, 2]))"
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)


@pytest.mark.slow
def test_the_python_example_runs(capsys):
    exec(compile(blocks("python")[1], "README.md", "exec"), {})
    assert "f" in capsys.readouterr().out
