"""The benchmark for GPUs: its parts at toy sizes, what it refuses, and what a failure does."""

import json
import math
import sys

import pytest
import torch

from toy_search import benchmark

pytest.importorskip("transformers", reason="transformers is not installed")
gpu = benchmark("gpu")
gpu_rows, gpu_search = sys.modules["gpu_rows"], sys.modules["gpu_search"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The status and the table of all parts."""
    file = tmp_path_factory.mktemp("gpu") / "table.json"
    status = gpu.main(["--device", "cpu", "--tiny", "--json", str(file)])
    return status, json.loads(file.read_text())


@pytest.mark.slow
def test_all_parts_run_at_toy_sizes(whole):
    status, table = whole
    assert {name: each["error"] for name, each in table["parts"].items()} == dict.fromkeys(
        gpu.PARTS
    )
    assert status == 0
    assert table["environment"]["device"] == "cpu"
    assert table["environment"]["torch"] == torch.__version__


@pytest.mark.slow
def test_every_figure_is_one_or_says_why_not(whole):
    for part in whole[1]["parts"].values():
        for row in part["rows"]:
            unknown = math.isnan(row["value"])
            assert unknown == ("left out" in row["note"] or "memory" in row["what"]), row
            assert unknown or row["value"] >= 0, row


@pytest.mark.slow
def test_targets_are_in_the_table(whole):
    targets = {
        (name, row["target"]) for name, part in whole[1]["parts"].items()
        for row in part["rows"] if row["target"]
    }  # fmt: skip
    assert targets == {
        ("mnist", "< 120 s"), ("mnist", ">= 100 ×"), ("diabetes", "< 60 s"),
        ("diabetes", ">= 100 ×"),
    }  # fmt: skip


@pytest.mark.slow
def test_answers_without_a_cache_are_those_with_one(whole):
    notes = [row["note"] for row in whole[1]["parts"]["generation"]["rows"]]
    assert "100% of the answers are the same" in notes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "device 'cuda': torch finds no GPU"),
        (["--device", "cpu"], "give --tiny, or a GPU"),
        (
            ["--device", "cpu", "--tiny", "--share", "2"],
            "--share 2: give a number above 0, 1 at most",
        ),
    ],
)
def test_where_there_is_nothing_to_measure_a_line_says_so(options, text, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(options) == 2
    told = capsys.readouterr()
    assert text in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_a_part_that_fails_is_told_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    def broken(plan):
        yield gpu_rows.Row("one", 1.0, "s")
        raise RuntimeError("no kernel image\nand more")

    def sound(plan):
        yield gpu_rows.Row.below("two", 3.0, "s", 2.0)

    monkeypatch.setattr(gpu, "PARTS", {"broken": broken, "sound": sound})
    file = tmp_path / "table.json"
    assert gpu.main(["--device", "cpu", "--tiny", "--json", str(file)]) == 1
    parts = json.loads(file.read_text())["parts"]
    assert parts["broken"]["error"] == "RuntimeError: no kernel image"
    assert [row["what"] for row in parts["broken"]["rows"]] == ["one"]
    assert parts["sound"]["error"] is None
    assert parts["sound"]["rows"][0]["met"] is False
    out = capsys.readouterr().out
    assert "FAILED after 1 rows: RuntimeError: no kernel image\n" in out
    assert "MISSED" in out


def test_a_process_that_dies_or_hangs_is_told(monkeypatch, tmp_path, capsys):
    arguments = gpu.arguments_of(["--device", "cpu"])  # which the process refuses
    kept = {}
    gpu.run_apart("mnist", arguments, 120.0, kept.__setitem__)
    assert kept["mnist"]["error"] == "the process ended with status 2"
    gpu.run_apart("mnist", arguments, 0.01, kept.__setitem__)
    assert kept["mnist"]["error"] == "ended after 0.01 s"
    assert capsys.readouterr().out.count("FAILED") == 2


def test_a_part_of_the_budget_is_called_extrapolated():
    history = [None] * 50  # two generations of 25
    plan = gpu_rows.Plan(CPU, share=0.04)
    assert gpu_search._sizes(plan) == {"population": 25, "generations": 2}
    row = next(gpu_search._throughput(gpu_search.MNIST, plan, None, history, 4.0))
    assert (row.value, row.met) == (100.0, True)
    assert row.note == "EXTRAPOLATED from 2 of 50 generations"


def test_products_are_those_that_torch_makes():
    sizes = [(2, 3, 4), (2, 3, 4), (5, 1, 2)]
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        gpu_rows.multiplied(sizes, 3, CPU, torch.float32)()
    assert counter.get_total_flops() == 3 * sum(2 * m * k * n for m, k, n in sizes)


def test_losses_are_switched_to_torch_and_back():
    from evoloss.engine.loss_population import LossPopulation
    from evoloss.lang.parse import parse

    losses, tensor = LossPopulation([parse("square(y - f)")]), torch.zeros(1)
    with gpu_search.torch_losses():
        assert losses.form(tensor) == "torch"
    assert losses.form(tensor) == "fused"
