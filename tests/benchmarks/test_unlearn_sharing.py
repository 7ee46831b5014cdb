"""The benchmark of how adapters share the cores, in small: each way trains the same generation."""

import re
import sys

import pytest

from evoloss.unlearn.problem import load_problem
from toy_search import benchmark

pytest.importorskip("transformers", reason="transformers is not installed")

sharing = benchmark("unlearn_sharing")


@pytest.mark.usefixtures("one_thread", "own_cache", "mirror")
def test_each_way_is_timed_by_the_same_generation(unlearning_folder, monkeypatch, capsys):
    files = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    known = load_problem(str(unlearning_folder / "model"), **files)
    monkeypatch.setattr(sharing, "demonstration", lambda: known)
    monkeypatch.setattr("evoloss.unlearn.arena.cores", lambda: 2)
    done, run = [], sharing.timed

    def timed(problem, losses, rounds):
        for way in sharing.WAYS:
            with sharing.generation(problem, losses, way) as train:
                done.append([each.score for each in train()])
        return run(problem, losses, rounds)

    monkeypatch.setattr(sharing, "timed", timed)
    arguments = ["--widths", "32", "--layers", "1", "--losses", "3", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["unlearn_sharing.py", *arguments])
    sharing.main()
    one, shards, workers = done
    assert shards == workers == pytest.approx(one, abs=1e-4)
    told = capsys.readouterr().out
    ratios = re.findall(r"(one batch|shards|workers) (\d+\.\d\d)", told)
    assert ratios[0] == ("one batch", "1.00")
    assert all(float(ratio) > 0 for _, ratio in ratios)
    assert len(ratios) == 3
