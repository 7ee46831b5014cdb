"""A comparison from plan to table, on a small budget."""

import csv
import json
import math
from dataclasses import replace
from statistics import fmean

import pytest
from scipy.stats import ttest_rel
from typer.testing import CliRunner

from evoloss.cli import app
from evoloss.compare import Plan, parse_budget, run, summarise
from evoloss.compare import runner as runner_module
from evoloss.compare.summary import holm
from evoloss.discovery.presets import METHODS
from evoloss.errors import UserError
from evoloss.store import Store
from evoloss.tables import spread
from evoloss.tasks.registry import load_task
from unmarked import forget_marks

SMALL = {
    "population": 4, "local_steps": 2, "fitness_steps": 10, "finalists": 2, "final_seeds": 1,
}  # fmt: skip
METHODS_HERE = ["random", "evomal"]


def plan(out, **changes):
    given = {
        "tasks": ["diabetes"], "methods": METHODS_HERE, "seeds": 3, "factors": (1, 3),
        "budget": parse_budget("candidates=8"), "out": out, "trainings": 2, "settings": SMALL,
    }  # fmt: skip
    return Plan(**{**given, **changes})


@pytest.fixture(scope="module")
def task():
    return load_task("diabetes", network="linear")


@pytest.fixture(scope="module")
def done(tmp_path_factory, task):
    made = plan(tmp_path_factory.mktemp("comparison"))
    run(made, [("diabetes", task)])
    return made


def test_the_usual_loss_is_always_there_plain_and_tuned(done, task):
    summary = summarise(done, "diabetes", "diabetes", task)
    assert [row.method for row in summary.rows] == ["task-loss", "tuned-task-loss", *METHODS_HERE]
    assert sorted(row.rank for row in summary.rows) == [1, 2, 3, 4]
    for row in summary.rows:
        assert set(row.tests) == {1, 3}
        assert len(row.validation) == len(row.tests[1]) == 3
        assert row.candidates == (1 if "task-loss" in row.method else 8)


def test_the_p_values_are_paired_and_corrected(done, task):
    rows = {row.method: row for row in summarise(done, "diabetes", "diabetes", task).rows}
    for rival, field in (("task-loss", "p_usual"), ("tuned-task-loss", "p_tuned")):
        raw = [ttest_rel(rows[name].tests[1], rows[rival].tests[1]).pvalue for name in METHODS_HERE]
        low, high = sorted(range(2), key=lambda index: raw[index])
        wanted = {low: min(1.0, 2 * raw[low])}
        wanted[high] = max(wanted[low], raw[high])
        for index, name in enumerate(METHODS_HERE):
            assert getattr(rows[name], field) == pytest.approx(wanted[index])
    assert rows["task-loss"].p_usual is None


def test_test_scores_are_those_of_the_stored_evaluations(done, task):
    cell = next(c for c in done.cells("diabetes", "diabetes") if c.method == "evomal")
    with Store.open(cell.directory, write=False) as store:
        records = {record["steps"]: record for record in store.evaluations()}
    assert set(records) == {10, 30}
    scores = records[10]["rows"][0]["scores"]
    assert len(scores) == 2
    row = summarise(done, "diabetes", "diabetes", task).rows[3]
    assert row.tests[1][0] == pytest.approx(fmean(scores))


def test_what_is_done_is_not_done_again(done, task, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("nothing is missing")

    for name in ("search", "resume", "evaluate"):
        monkeypatch.setattr(runner_module, name, fail)
    run(done, [("diabetes", task)])


def of_one(made):
    """The run of a comparison's last method, and what is kept of its evaluations."""
    directory = list(made.cells("diabetes", "diabetes"))[-1].directory
    with Store.open(directory, write=False) as store:
        return directory, store.evaluations()


@pytest.fixture
def little(task, tmp_path):
    made = plan(tmp_path / "little", seeds=1, methods=["random"], factors=(1,))
    run(made, [("diabetes", task)])
    return made


def shown(made, task):
    return [row.tests for row in summarise(made, "diabetes", "diabetes", task).rows]


def test_more_trainings_are_made_and_not_only_told(little, task):
    more = replace(little, trainings=3)
    with pytest.raises(UserError, match="lacks a meta-test: run the comparison again"):
        summarise(more, "diabetes", "diabetes", task)
    before = shown(little, task)
    run(more, [("diabetes", task)])
    _, (first, second) = of_one(little)
    assert [len(each["rows"][0]["scores"]) for each in (first, second)] == [2, 3]
    own = summarise(more, "diabetes", "diabetes", task).rows[-1].tests[1]
    assert own == (pytest.approx(fmean(second["rows"][0]["scores"])),)
    assert shown(little, task) == before


def test_an_evaluation_of_the_user_s_own_is_not_the_comparison_s(little, task):
    before = shown(little, task)
    directory, (kept,) = of_one(little)
    evaluated = CliRunner().invoke(
        app, ["evaluate", str(directory), "--seeds", "1", "--steps", "10"]
    )
    assert evaluated.exit_code == 0, evaluated.output
    _, (_, own) = of_one(little)
    assert own["steps"] == kept["steps"]
    assert own["rows"][0]["scores"] != kept["rows"][0]["scores"]
    assert shown(little, task) == before


def test_what_an_earlier_version_evaluated_is_evaluated_anew(little, task):
    before = shown(little, task)
    for cell in little.cells("diabetes", "diabetes"):
        forget_marks(cell.directory)
    run(little, [("diabetes", task)])
    _, records = of_one(little)
    assert ["comparison" in each for each in records] == [False, True]
    assert shown(little, task) == before


@pytest.mark.parametrize("moment", [1, 5, 10, 13])
def test_an_interrupted_comparison_goes_on(done, task, tmp_path, moment):
    made = replace(done, out=tmp_path)
    said = []

    def say(line):
        said.append(line)
        if len(said) == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, [("diabetes", task)], say)
    run(made, [("diabetes", task)])
    again, first = (summarise(each, "diabetes", "diabetes", task) for each in (made, done))
    for one, other in zip(again.rows, first.rows, strict=True):
        assert replace(one, seconds=0.0) == replace(other, seconds=0.0)


def test_a_method_that_is_added_later_joins_the_others(done, task):
    more = replace(done, methods=[*METHODS_HERE, "zoo"])
    run(more, [("diabetes", task)])
    assert [row.method for row in summarise(more, "diabetes", "diabetes", task).rows][-1] == "zoo"


def test_a_search_that_broke_off_is_resumed(task, tmp_path, monkeypatch):
    made = plan(tmp_path, seeds=1, methods=["evomal"])
    real = runner_module.search

    def broken_off(*arguments, **settings):
        def stop(progress):
            if settings["method"] == "evomal" and progress.stage == "saved":
                raise KeyboardInterrupt

        return real(*arguments, observer=stop, **settings)

    monkeypatch.setattr(runner_module, "search", broken_off)
    with pytest.raises(KeyboardInterrupt):
        run(made, [("diabetes", task)])
    lines = []
    run(made, [("diabetes", task)], lines.append)
    assert "diabetes: evomal, seed 0, from where it was broken off" in lines


def test_other_settings_in_the_same_place_are_refused(done, task):
    with pytest.raises(UserError, match="another task, network, budget or settings"):
        run(replace(done, budget=parse_budget("candidates=12")), [("diabetes", task)])
    with pytest.raises(UserError, match="another task"):
        run(done, [("diabetes", load_task("diabetes", network="mlp:3"))])


def test_a_run_that_another_process_writes_to_is_told(task, tmp_path):
    made = plan(tmp_path, seeds=1, methods=["evomal"], factors=(1,))
    run(made, [("diabetes", task)])
    cell = list(made.cells("diabetes", "diabetes"))[-1]
    with (
        Store.open(cell.directory, write=True),
        pytest.raises(UserError, match="process"),
    ):
        run(replace(made, factors=(1, 2)), [("diabetes", task)])


@pytest.mark.parametrize(
    ("text", "message"),
    [("candidate=5", "did you mean 'candidates'"), ("candidates=0", "positive"),
     ("steps=many", "positive"), ("candidates=inf", "positive"), ("x", "unknown budget")],
)  # fmt: skip
def test_a_budget_that_is_none(text, message):
    with pytest.raises(UserError, match=message):
        parse_budget(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["evomol"]}, "did you mean 'evomal'"),
        ({"budget": parse_budget("candidates=3")}, "too small for one generation of 4"),
        ({"seeds": 0}, "give at least 1"),
        ({"factors": (0,)}, "factors"),
        ({"preset": "papre"}, "did you mean 'paper'"),
    ],
)
def test_a_plan_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        plan(tmp_path, **changes)


def test_budgets_in_steps_and_seconds_end_a_search(task, tmp_path):
    made = plan(tmp_path, seeds=1, methods=["evomal"], budget=parse_budget("steps=1"))
    run(made, [("diabetes", task)])
    assert summarise(made, "diabetes", "diabetes", task).rows[-1].candidates == 4
    assert parse_budget("seconds=2.5").settings(4)["max_seconds"] == 2.5


def test_searches_in_other_processes_come_out_the_same(done, task, tmp_path):
    made = replace(done, out=tmp_path, seeds=1, jobs=2)
    lines = []
    run(made, [("diabetes", task)], lines.append)
    assert "diabetes: evomal, seed 0" in lines
    for cell in made.cells("diabetes", "diabetes"):
        other = next(c for c in done.cells("diabetes", "diabetes") if c.method == cell.method)
        with (
            Store.open(cell.directory, write=False) as one,
            Store.open(other.directory, write=False) as two,
        ):
            assert one.candidates() == two.candidates()
    with pytest.raises(UserError, match="lives in memory"):
        run(replace(made, out=tmp_path / "x"), [("diabetes", replace(task, source=None))])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_failed_training_is_told():
    assert spread([1.0, math.nan]) == "1 of 2 failed"
    assert spread([1.0, 2.0]) == "1.5 ± 0.71"


def test_every_method_can_be_planned(tmp_path):
    made = plan(tmp_path, methods=list(METHODS))
    assert len(list(made.cells("diabetes", "diabetes"))) == 3 * len(METHODS)


def test_the_command_prints_and_saves_the_table(tmp_path, monkeypatch):
    """With a search on each processor: that other processes do the same, another test sees."""
    asked, out = [], tmp_path / "comparison"

    def here(jobs, cells, task, say):
        asked.append(jobs)
        for cell in cells:
            runner_module._complete(cell, task, say)

    monkeypatch.setattr(runner_module, "_complete_side_by_side", here)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    command = (
        "compare --task diabetes --network linear --methods random --seeds 2 --factors 1 "
        "--budget candidates=4 --population 4 --local-steps 2 --fitness-steps 10 --finalists 1 "
        f"--final-seeds 1 --trainings 1 --out {out}"
    )
    shown = CliRunner().invoke(app, command.split())
    assert shown.exit_code == 0, shown.output
    assert asked == [3]
    assert "tuned-task-loss" in shown.output
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["task-loss", "tuned-task-loss", "random"]
    (summary,) = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert summary["rows"][2]["tests"]["1"]
    assert "| random |" in (out / "results.md").read_text(encoding="utf-8")


def test_a_transfer_needs_a_run_of_the_same_kind(tmp_path, done):
    cell = next(c for c in done.cells("diabetes", "diabetes") if c.method == "evomal")
    runner = CliRunner()
    command = ["transfer", str(cell.directory), "--seeds", "2", "--steps", "5", "--task"]
    shown = runner.invoke(app, [*command, "diabetes", "--network", "mlp:4", "--json"])
    assert shown.exit_code == 0, shown.output
    assert [row["label"] for row in json.loads(shown.output)["rows"]] == ["transferred", "usual"]
    refused = runner.invoke(app, [*command, "digits"])
    assert isinstance(refused.exception, UserError)
    assert "after identity" in str(refused.exception)


def test_watching_a_finished_run_shows_it_and_ends(done):
    cell = next(c for c in done.cells("diabetes", "diabetes") if c.method == "evomal")
    shown = CliRunner().invoke(app, ["watch", str(cell.directory)])
    assert shown.exit_code == 0, shown.output
    assert "generation 2/2" in shown.output
    assert "finished" in shown.output


def test_a_search_that_finds_nothing_is_a_failure_in_the_table(task, tmp_path):
    hopeless = replace(task, metric=replace(task.metric, function=lambda f, y: math.nan,
                                            batched=False))  # fmt: skip
    made = plan(tmp_path, seeds=2, methods=["evomal"])
    lines = []
    run(made, [("diabetes", hopeless)], lines.append)
    assert any("could be trained" in line for line in lines)
    row = summarise(made, "diabetes", "diabetes", hopeless).rows[-1]
    assert row.verdict == "failed"
    assert spread(row.tests[1]) == "2 of 2 failed"
