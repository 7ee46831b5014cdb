"""A comparison of proposers of unlearning losses, from plan to table, on a small model."""

import csv
import json
import shutil
from dataclasses import replace
from statistics import fmean

import pytest
from scipy.stats import ttest_rel
from typer.testing import CliRunner

from evoloss.cli import app
from evoloss.compare import hand_written, parse_budget
from evoloss.compare import unlearning as comparison
from evoloss.compare import unlearning_output as output
from evoloss.compare.unlearning import run
from evoloss.compare.unlearning_plan import UnlearnPlan
from evoloss.compare.unlearning_summary import summarise
from evoloss.errors import UserError
from evoloss.execution.staff import Staff
from evoloss.propose.llm import Endpoint
from evoloss.store import Store
from evoloss.unlearn.problem import load_problem
from evoloss.unlearn.sharing import SHARD
from mirror import mirrors
from propose.llm_server import Scripted, Server, losses
from unmarked import forget_marks

pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

SMALL = {
    "population": 4, "epochs": 2, "batch": 4, "lr": 4e-3, "rank": 2, "texts": 2, "finalists": 1,
    "final_seeds": 1, "final_rates": (1.0,), "together": 4,
}  # fmt: skip
AGAINST = ["grad-diff", "npo"]


@pytest.fixture(scope="module")
def problem(unlearning_folder):
    sets = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    return load_problem(str(unlearning_folder / "model"), **sets)


def plan(out, **changes):
    given = {
        "proposers": ["gp", "zoo"], "seeds": 2, "budget": parse_budget("candidates=8"),
        "against": AGAINST, "out": out, "tune": 2, "eval_seeds": 2, "settings": SMALL,
    }  # fmt: skip
    return UnlearnPlan(**{**given, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory, problem):
    made = plan(tmp_path_factory.mktemp("unlearning-comparison"))
    said = []
    run(made, problem, say=said.append)
    notes = [each for each in said if each.startswith("note")]
    assert len(notes) == len(set(notes))  # told once, not by every search
    return made


def records(made, proposer="gp"):
    """The evaluations of a proposer's runs, seed by seed."""
    found = []
    for cell in made.cells():
        if cell.proposer == proposer:
            with Store.open(cell.directory, write=False) as store:
                found += store.evaluations()
    return found


def test_every_proposer_and_known_loss_is_in_the_table(done, problem):
    summary = summarise(done, problem)
    assert [row.name for row in summary.rows] == ["gp", "zoo", *AGAINST]
    assert [row.proposer for row in summary.rows] == [True, True, False, False]
    assert sorted(row.rank for row in summary.rows) == [1, 2, 3, 4]
    assert [row.candidates for row in summary.rows] == [8, 8, 2, 2]
    for row in summary.rows:
        assert len(row.search) == len(row.test) == 2
        assert {"forgetting", "utility_kept"} <= set(row.metrics)
        assert row.steps > 0
    assert summary.best in AGAINST
    assert "before" in summary.models


def test_scores_are_those_of_the_stored_evaluations(done, problem):
    rows = {row.name: row for row in summarise(done, problem).rows}
    for row, kept in zip(
        (rows["gp"], rows["zoo"]), (records(done), records(done, "zoo")), strict=True
    ):
        assert len(kept) == 2  # once a seed
        for seed, record in enumerate(kept):
            first, *others = record["rows"]
            assert first["label"] == "found"
            assert [each["label"] for each in others] == AGAINST
            assert len(first["values"]) == 2
            assert row.test[seed] == pytest.approx(fmean(v["balance"] for v in first["values"]))
            assert all(set(each["after"]) == {"found"} for each in record["samples"])
            assert others == [hand_written.read(done, seed)[name]["row"] for name in AGAINST]


def test_the_p_values_are_paired_and_corrected(done, problem):
    summary = summarise(done, problem)
    rows = {row.name: row for row in summary.rows}
    assert fmean(rows[summary.best].test) == max(fmean(rows[name].test) for name in AGAINST)
    raw = {
        name: ttest_rel(rows[name].test, rows[summary.best].test).pvalue for name in ("gp", "zoo")
    }
    low, high = sorted(raw, key=lambda name: raw[name])
    first = min(1.0, 2 * raw[low])
    assert rows[low].p == pytest.approx(first)
    assert rows[high].p == pytest.approx(max(first, raw[high]))
    assert rows["npo"].p is None
    assert rows["npo"].verdict == ""


def test_what_is_done_is_not_done_again(done, problem, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(comparison, "evaluate", fail)
    monkeypatch.setattr(hand_written, "tuned", fail)
    for name in ("search", "resume", "reopened"):
        monkeypatch.setattr(comparison.searching, name, fail)
    run(done, problem)


def test_only_its_own_evaluations_count(done, problem, tmp_path):
    """Not those of an earlier version, nor a user's own, of as many adapters."""
    made = replace(done, out=tmp_path / "copy")
    shutil.copytree(done.out, made.out)
    before = table(made, problem)
    cell = next(made.cells())
    assert (cell.proposer, cell.seed) == ("gp", 0)
    forget_marks(cell.directory)
    assert comparison.evaluation(cell, 2) is None
    with Store.open(cell.directory, write=True) as store:
        [kept] = store.evaluations()
        kept["rows"][0]["values"] = [{"balance": 0.0}, {"balance": 0.0}]
        store.add_evaluation(kept)
    said = []
    run(made, problem, say=said.append)
    assert [line for line in said if line.startswith("test")] == ["test, seed 0: gp"]
    for row, old in zip(table(made, problem), before, strict=True):
        assert row.test == pytest.approx(old.test)
        assert row.verdict == old.verdict
    assert comparison.evaluation(cell, 2)["rows"][1:] == kept["rows"][1:]


@pytest.mark.parametrize("moment", ["zoo, seed 0", "npo, seed 0", "test"])
def test_an_interrupted_comparison_goes_on(done, problem, tmp_path, moment):
    made = replace(done, out=tmp_path, seeds=1)

    def say(line):
        if line.startswith(moment):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, problem, say=say)
    tuned = hand_written.read(made, 0)
    said = []
    run(made, problem, say=said.append)
    again = {name for name in AGAINST if any(line.startswith(f"{name}, seed 0") for line in said)}
    assert again == set(AGAINST) - set(tuned)  # what was tuned is not tuned again
    assert len(tuned) == {"zoo, seed 0": 0, "npo, seed 0": 1, "test": 2}[moment]
    for proposer in ("gp", "zoo"):
        [again], [first, _] = records(made, proposer), records(done, proposer)
        for one, other in zip(again["rows"], first["rows"], strict=True):
            assert one["formula"] == other["formula"]
            for mine, theirs in zip(one["values"], other["values"], strict=True):
                assert mine == pytest.approx(theirs)


def test_a_search_that_broke_off_is_resumed(done, problem, tmp_path):
    made = replace(done, out=tmp_path, seeds=1, proposers=["gp"])

    def stop(what, share):
        if what == "gp, seed 0: saved":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, problem, tell=stop)
    said = []
    run(made, problem, say=said.append)
    assert "gp, seed 0, from where it was broken off" in said
    [again], [first, _] = records(made), records(done)
    assert again["rows"][0]["formula"] == first["rows"][0]["formula"]


def test_a_mixture_asks_the_language_model_and_goes_on_asking(problem, tmp_path):
    made = plan(tmp_path, seeds=1, proposers=["mixture"], against=["ga"], eval_seeds=1)

    def stop(what, share):
        if what == "mixture, seed 0: saved":
            raise KeyboardInterrupt

    with Server(lambda number, _: Scripted(losses(number + 1.5, number + 2.25))) as server:
        endpoint = Endpoint(server.url, "tiny", retries=0, timeout=20)
        with pytest.raises(KeyboardInterrupt):
            run(made, problem, endpoint, tell=stop)
        asked = len(server.requests)
        run(made, problem, endpoint)
        assert len(server.requests) > asked > 0
    with Store.open(tmp_path / "mixture-0", write=False) as store:
        found = {each.operator.split(" ")[0] for each in store.candidates()}
        assert store.generations == 2
    assert found == {"gp", "llm"}
    rows = {row.name: row for row in summarise(made, problem).rows}
    assert rows["mixture"].verdict == "one seed says nothing"


def table(made, problem):
    """The rows that are shown, but for how long everything took."""
    return [replace(row, seconds=0.0) for row in summarise(made, problem).rows]


def few(out, **changes):
    own = {"proposers": ["zoo"], "seeds": 1, "budget": parse_budget("candidates=4"),
           "against": ["npo"], "tune": 2, "eval_seeds": 1}  # fmt: skip
    return plan(out, **{**own, **changes})


def test_workers_make_the_same_table(problem, mirror, tmp_path):
    alone = few(tmp_path / "alone", settings={**SMALL, "shard": SHARD})
    run(alone, problem)
    assert not mirrors
    made = few(tmp_path / "workers")
    run(made, problem, staff=Staff(workers=2))
    assert len(mirrors) == 2  # for the search, and for what follows it
    assert table(made, problem) == table(alone, problem)


def test_workers_may_come_and_go(problem, mirror, tmp_path):
    """Also where everything is in shards, as workers want it, but no longer has workers."""
    made = few(tmp_path)

    def stop(what, share):
        if what.startswith("test"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, problem, tell=stop, staff=Staff(workers=2))
    run(made, problem)
    begun = len(mirrors)
    more = replace(made, against=["npo", "ga"])
    run(more, problem, staff=Staff(workers=2))
    assert len(mirrors) == begun + 1
    assert [row.name for row in summarise(more, problem).rows] == ["zoo", "npo", "ga"]


def test_data_in_memory_are_refused_with_workers(problem, tmp_path):
    with pytest.raises(UserError, match=r"lives in memory.*sets to files"):
        run(few(tmp_path), replace(problem, source=None), staff=Staff(workers=2))
    assert not list(tmp_path.iterdir())


def test_the_command_has_the_same_table_on_one_worker_and_on_two(problem, mirror, tmp_path):
    sets = [f"--{name}={problem.source[name]}" for name in ("model", "forget", "retain")]
    small = [f"--{name}={SMALL[name]}" for name in ("population", "epochs", "batch", "lr", "rank")]
    tables = []
    for count in (1, 2):
        out = tmp_path / str(count)
        found = CliRunner().invoke(
            app,
            ["unlearn", "compare", *sets, *small, "--texts=2", "--proposers=zoo", "--seeds=1",
             "--budget=candidates=4", "--against=npo", "--tune=2", "--eval-seeds=1",
             f"--workers={count}", f"--out={out}"],
        )  # fmt: skip
        assert found.exit_code == 0, found.output
        rows = json.loads((out / "results.json").read_text())["rows"]
        tables.append([{**row, "seconds": None} for row in rows])
    assert tables[0] == tables[1]
    assert [row["name"] for row in tables[0]] == ["zoo", "npo"]


def test_a_proposer_and_a_loss_that_are_added_later_join_the_others(done, problem):
    before = {path: path.read_bytes() for path in done.out.glob("gp-*/run.db")}
    more = replace(done, proposers=["gp", "zoo", "random"], against=[*AGAINST, "ga"])
    run(more, problem)
    summary = summarise(more, problem)
    assert [row.name for row in summary.rows] == ["gp", "zoo", "random", *AGAINST, "ga"]
    assert len(summary.rows[-1].test) == 2
    assert {path: path.read_bytes() for path in before} == before


def test_the_tables_are_saved(done, problem, tmp_path):
    summary = summarise(done, problem)
    table, data, text = output.save(summary, tmp_path)
    with table.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["loss", "rank", "search balance", "test balance"]
    assert [row[0] for row in rows] == ["gp", "zoo", *AGAINST]
    assert all(len(row) == len(header) for row in rows)
    plain = json.loads(data.read_text())
    assert plain["rows"][0]["test"] == list(summary.rows[0].test)
    lines = [line for line in text.read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| before |")


def test_failures_are_in_the_table(done, problem, tmp_path):
    """A loss that broke down in all its trainings, and an adapter that failed."""
    made = replace(done, out=tmp_path)
    for path in done.out.glob("*"):
        if path.is_dir():
            (tmp_path / path.name).mkdir()
            (tmp_path / path.name / "run.db").write_bytes((path / "run.db").read_bytes())
        else:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    kept = json.loads(made.file(1).read_text())
    kept["losses"]["npo"]["row"]["values"][0] = None
    nothing = {"score": None, "trainings": 0, "steps": 0, "seconds": 0}
    kept["losses"]["grad-diff"] = {"reason": "broke down", **nothing}
    made.file(1).write_text(json.dumps(kept))
    summary = summarise(made, problem)
    rows = {row.name: row for row in summary.rows}
    assert summary.best is None
    assert "1 of 2 failed" in output.cells(summary, rows["npo"])
    assert rows["gp"].verdict == "nothing to compare with"
    assert rows["grad-diff"].to_json()["test"][1] is None


# What a user can do wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposers": ["gpp"]}, "unknown proposer 'gpp'"),
        ({"seeds": 0}, "0 seeds"),
        ({"budget": parse_budget("candidates=3")}, "too small for one generation of 4"),
        ({"budget": parse_budget("steps=100"), "tune": None}, "give --tune N"),
        ({"against": []}, "nothing to compare"),
        ({"settings": {"populatoin": 4}}, "unknown setting 'populatoin'"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        plan(tmp_path, **changes)


def test_wrong_names_and_other_circumstances_are_refused(done, problem, tmp_path):
    with pytest.raises(UserError, match="unknown unlearning loss or method 'nop'"):
        run(plan(tmp_path, against=["nop"]), problem)
    with pytest.raises(UserError, match="'mixture' needs --llm-url"):
        run(plan(tmp_path, proposers=["mixture"]), problem)
    with pytest.raises(UserError, match=r"hand-written-0\.json' was made with another model"):
        run(replace(done, tune=3), problem)
    moved = plan(tmp_path)
    (tmp_path / "gp-0").mkdir()
    (tmp_path / "gp-0" / "run.db").write_bytes((done.out / "gp-0" / "run.db").read_bytes())
    with pytest.raises(UserError, match="gp-0' has another model, data, budget or settings"):
        run(replace(moved, settings={**SMALL, "rank": 3}), problem)
    moved.file(0).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*: delete it"):
        run(moved, problem)


def test_a_setting_that_an_earlier_version_did_not_have_was_what_is_its_default(
    done, problem, tmp_path
):
    made, written = plan(tmp_path), json.loads(done.file(0).read_text())
    own = written["settings"]
    assert own.pop("warmup") == 0.0
    made.file(0).write_text(json.dumps(written))
    hand_written.check(made, problem, 0)
    warmer = replace(made, settings={**SMALL, "warmup": 0.1})
    for other in (warmer, replace(made, settings={**SMALL, "lr": 2 * SMALL["lr"]})):
        with pytest.raises(UserError, match="was made with another model"):
            hand_written.check(other, problem, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model, or --demo"),
        (["--demo", "--model", "x"], "leave --model out"),
        (["--model", "x", "--llm-url", "http://localhost:1/v1"], "both --llm-url and --llm-model"),
        (["--model", "x", "--budget", "tokens=3"], "unknown budget 'tokens'"),
        (["--model", "x", "--proposers", "gp,genetic"], "unknown proposer 'genetic'"),
    ],
)
def test_the_command_refuses_before_anything_is_loaded(arguments, message, tmp_path):
    found = CliRunner().invoke(app, ["unlearn", "compare", "--out", str(tmp_path), *arguments])
    assert isinstance(found.exception, UserError)
    assert message in str(found.exception)


def test_the_command_prints_and_saves(done, problem, monkeypatch):
    """On a comparison that is complete; its plan is the one that the options make."""
    plans = []
    monkeypatch.setattr("evoloss.compare.unlearning.run", lambda plan, *_: plans.append(plan))
    monkeypatch.setattr("evoloss.compare.unlearning_summary.summarise",
                        lambda made, _: summarise(replace(done), problem))  # fmt: skip
    sets = [f"--{name}={problem.source[name]}" for name in ("model", "forget", "retain")]
    found = CliRunner().invoke(
        app,
        ["unlearn", "compare", *sets, "--proposers=gp,zoo", "--seeds=2", "--budget=candidates=8",
         "--against=grad-diff,npo", "--tune=2", "--eval-seeds=2", "--population=4", "--rank=2",
         f"--out={done.out}"],
        env={"COLUMNS": "80"},
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    [made] = plans
    assert (made.proposers, made.seeds, made.against) == (["gp", "zoo"], 2, AGAINST)
    assert made.settings == {"population": 4, "rank": 2}
    assert all(len(line) <= 80 for line in found.output.splitlines() if "saved" not in line)
    assert "grad-diff" in found.output
    assert (done.out / "results.md").is_file()
