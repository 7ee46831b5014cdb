"""What an unlearning search would take: counted by hand, and priced on a small model."""

import sys
from dataclasses import replace

import pytest

from evoloss.unlearn.settings import unlearn_settings
from toy_search import benchmark

pytest.importorskip("transformers", reason="transformers is not installed")

takes = benchmark("unlearn_takes")


def test_the_count_is_that_of_a_race_with_its_finalists():
    settings = unlearn_settings(epochs=4, batch=8, finalists=2, final_seeds=3, texts=10)
    cost = takes.Prices(step=1.0, look=0.1, answer=10.0)
    found = takes.bill(cost, settings, losses=8, forget=40, retain=80)
    # 20 steps each: all take 15, a half the last 5; six adapters of finalists take 20.
    assert found.steps == 8 * 15 + 4 * 5 + 6 * 20
    assert found.training == found.steps
    # 20 questions of each set: all are looked at once; of four and of six adapters the answers
    # to 20 and to 10 are read, and 10 more looked at.
    assert found.measuring == pytest.approx(8 * 40 * 0.1 + 10 * (30 * 10 + 10 * 0.1))
    more = takes.bill(replace(cost, step=2.0), settings, losses=8, forget=40, retain=80)
    assert (more.steps, more.training) == (found.steps, 2 * found.steps)


@pytest.mark.usefixtures("one_thread", "own_cache")
def test_a_model_is_priced(unlearning_folder, monkeypatch, capsys):
    monkeypatch.setattr(takes, "load_problem", _load_problem(unlearning_folder))
    arguments = ["--model", str(unlearning_folder / "model"), "--data-dir", ".", "--sample", "8"]
    monkeypatch.setattr(sys, "argv", ["unlearn_takes.py", *arguments, "--losses", "9"])
    takes.main()
    told = capsys.readouterr().out
    assert "9 losses, 10 rows to forget" in told
    assert "seconds are of the processor" in told
    assert " 0.000 s" not in told


def _load_problem(folder):
    """The fictional sets in place of a benchmark's."""
    load = takes.load_problem

    def loaded(model, data, data_dir, probes, **rows):
        files = {name: str(folder / f"{name}.jsonl") for name in ("forget", "retain")}
        return load(model, **files, **{name: min(n, 10) for name, n in rows.items()})

    return loaded
