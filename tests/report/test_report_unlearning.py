"""Reports on unlearning runs: complete without any model, right in their numbers, and drawn."""

import csv
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from browser import PROGRAM, Browser
from drawn import check_drawn
from matplotlib.figure import Figure

import tiny
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.search import search as search_supervised
from evoloss.errors import UserError
from evoloss.lang import zoo
from evoloss.lang.evaluate import torch_value
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS
from evoloss.report import (
    lineage,
    progress,
    unlearning_curves,
    unlearning_evaluation,
    unlearning_losses,
    write,
)
from evoloss.report.header import header
from evoloss.report.mathematics import formula
from evoloss.report.runs import Run, bare, grouped, read
from evoloss.store import Store
from evoloss.store.entry import Entry

FIGURES = (
    "01-losses", "02-progress", "03-fates", "04-front", "05-lineage", "06-operators",
    "07-learning-curves", "08-balance", "09-test", "10-budget",
)  # fmt: skip
SETTINGS = {
    "population": 6, "generations": 3, "epochs": 2, "batch": 4, "lr": 4e-3, "rank": 2,
    "texts": 2, "finalists": 2, "final_seeds": 1, "final_rates": (1.0,), "together": 6,
}  # fmt: skip
GRAD_DIFF = zoo.loss("grad-diff")

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def run(unlearning_folder, tmp_path_factory):
    """A finished run with an evaluation, as the command line leaves it behind."""
    from evoloss.unlearn.contenders import Effort
    from evoloss.unlearn.finish import conclude
    from evoloss.unlearn.problem import load_problem
    from evoloss.unlearn.search import search

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("unlearning")
    sets = {name: str(unlearning_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    problem = load_problem(str(unlearning_folder / "model"), **sets)
    result, bench = search(problem, out=folder / "run", **SETTINGS)
    record = conclude(bench, result.best, ["ga", "npo"], Effort(2), 2, None)
    with Store.open(folder / "run", write=True) as store:
        store.add_evaluation(record)
    torch.set_num_threads(threads)
    return folder / "run"


@pytest.fixture(scope="module")
def page(run):
    """Made without loading a model."""

    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    with pytest.MonkeyPatch.context() as patch:
        for module in ("language", "bench"):
            patch.setattr(f"evoloss.unlearn.{module}.load_language", fail)
        write([run], run.parent / "report.html")
    return run.parent / "report.html"


def copied(run, folder, candidates=None, evaluations=True, finish=True, method="gp", **about):
    """The run again, with other things in its description or other candidates."""
    with Store.open(run, write=False) as old:
        described = {name: value for name, value in old.about.items() if name != "created"}
        settings = {**old.settings, "method": method}
        with Store.create(
            folder, task=old.task, settings=settings, about={**described, **about}
        ) as new:
            for number in range(old.generations if candidates is None else 1):
                some = old.candidates(number) if candidates is None else candidates
                new.commit(number, some, {"training": 1.0})
            if finish and candidates is None:
                new.finish(old.outcome)
            for each in old.evaluations() if evaluations else ():
                new.add_evaluation(each)
    return folder


def figures_of(page):
    return dict(re.findall(r'<figure id="([^"]*)">(.*?)</figure>', page.read_text(), re.DOTALL))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The page


def test_every_picture_is_there_with_its_files_and_data(page):
    found, folder = figures_of(page), page.with_name("report-figures")
    assert tuple(found) == FIGURES
    for name, text in found.items():
        assert "<svg" in text, name
        assert re.search(r"<figcaption>[^<]{40,}", text), name
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        ElementTree.parse(folder / f"{name}.svg")
        assert rows_of(folder / f"{name}.csv"), name
    for link in re.findall(r'href="(report-figures/[^"]*)"', page.read_text()):
        assert (page.parent / link).is_file(), link


def test_the_evaluation_is_shown_with_its_answers(run, page):
    text, rows = figures_of(page)["09-test"], rows_of(page.with_name("report-figures")
                                                      / "09-test.csv")  # fmt: skip
    with Store.open(run, write=False) as store:
        [record] = store.evaluations()
    for row in record["rows"]:
        assert f"<td>{row['label']}</td>" in text
        for seed, values in enumerate(row["values"]):
            kept = {each["metric"]: float(each["value"]) for each in rows
                    if each["loss"] == row["label"] and each["seed"] == str(seed)}  # fmt: skip
            assert kept == pytest.approx(values or {})
    for each in record["samples"]:
        assert each["question"] in text
        assert each["truth"] in text
    assert "before" in text
    assert "of the others" in text  # the verdict


def test_the_metrics_that_were_measured_are_explained(page):
    text = figures_of(page)["09-test"]
    for each in rows_of(page.with_name("report-figures") / "09-test.csv"):
        assert f"<dt>{each['metric']}" in text
    assert "harmonic mean of forgetting and utility kept; higher is better; 0 to 1" in text
    assert "privleak" not in text


def test_an_adapter_that_failed_is_told_and_no_mean_hides_it(run, tmp_path):
    part = copied(run, tmp_path / "part", evaluations=False)
    with Store.open(run, write=False) as store:
        [record] = store.evaluations()
    record["rows"][1]["values"][0] = None
    record["rows"][1]["reasons"][0] = "a gradient became <infinite>"
    with Store.open(part, write=True) as store:
        store.add_evaluation(record)
    write([part], tmp_path / "part.html")
    text = figures_of(tmp_path / "part.html")["09-test"]
    assert "<td>1 of 2 failed</td>" in text
    assert text.count("ga failed: a gradient became &lt;infinite&gt;") == 1
    assert "npo, the best of the others that never failed" in text
    (found,) = read([part])
    for panel in unlearning_evaluation.picture(found).panels:
        axes = Figure().subplots()
        panel.draw(axes)
        bars = [each.get_width() for each in axes.patches]
        assert bars[1::3] == [0.0] * (len(bars) // 3)
        assert all(bars[0::3]), "those of the found loss"
        assert [each.get_text() for each in axes.texts] == ["1 of 2 failed"]


def test_points_are_the_candidates_of_the_store(run, page):
    folder = page.with_name("report-figures")
    with Store.open(run, write=False) as store:
        scored = [each for each in store.candidates() if each.fate is Fate.SCORED]
        trained = [each for each in store.candidates() if each.details.get("curve")]
    points = {int(each["id"]): each for each in rows_of(folder / "08-balance.csv")}
    assert set(points) == {each.id for each in scored}
    for each in scored:
        kept, gone = float(points[each.id]["kept"]), float(points[each.id]["forgotten"])
        balance = 2 * kept * gone / (kept + gone) if kept + gone else 0.0
        assert balance == pytest.approx(-each.error)
    front = {each["id"] for each in points.values() if each["on the front"] == "yes"}
    assert front
    assert figures_of(page)["08-balance"].count("<li value") == len(front)
    curves = rows_of(folder / "07-learning-curves.csv")
    assert {int(each["id"]) for each in curves} == {each.id for each in trained}


def test_several_runs_are_compared_by_candidates(run, tmp_path):
    again = copied(run, tmp_path / "again", method="random")
    write([run, again], tmp_path / "both.html")
    assert tuple(figures_of(tmp_path / "both.html")) == FIGURES
    rows = rows_of(tmp_path / "both-figures" / "02-progress.csv")
    assert {each["method"] for each in rows} == {"gp", "random"}
    assert [int(each["candidates"]) for each in rows if each["method"] == "gp"] == [6, 12, 18]


def test_a_run_that_was_broken_off_or_not_evaluated(run, tmp_path):
    part = copied(run, tmp_path / "part", evaluations=False, finish=False)
    (found,) = read([part])
    title, head = header(grouped((found,)))
    assert title == "Losses for forget"
    assert "Not finished" in head
    assert "Not yet evaluated" in head
    assert "Not yet evaluated" in unlearning_evaluation.picture(found).caption


def test_a_run_without_a_scored_loss_has_a_report(run, tmp_path):
    failed = Candidate(0, 0, 0, "usual loss", (), GRAD_DIFF, "x", fate=Fate.FAILED, epochs=2)
    empty = copied(run, tmp_path / "empty", candidates=[failed], evaluations=False)
    write([empty], tmp_path / "empty.html")
    found = figures_of(tmp_path / "empty.html")
    assert tuple(found) == FIGURES
    assert "scored yet" in found["01-losses"]


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
def test_a_browser_draws_it_in_light_and_dark_wide_and_narrow(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        check_drawn(browser, page)


# What a user can do wrong


def test_runs_of_different_kinds_or_tasks_are_refused(run, tmp_path):
    search_supervised(tiny.regression(), out=tmp_path / "labelled", **tiny.SEARCH)
    for pair in ([run, tmp_path / "labelled"], [tmp_path / "labelled", run]):
        with pytest.raises(UserError, match=r"is an unlearning run.*report for each") as error:
            write(pair, tmp_path / "x.html")
        assert "\n" not in str(error.value)
    other = copied(run, tmp_path / "other", task="another set")
    with pytest.raises(UserError, match=r"has task 'another set'.*report for each"):
        write([run, other], tmp_path / "x.html")


# The numbers

BEFORE = {"forget": 0.8, "retain": 0.6}


@pytest.mark.parametrize("name", ["grad-diff", "npo", "sim-npo", "kl-retain", "wga", "sat-imp"])
@pytest.mark.parametrize("side", ["forget", "retain"])
def test_slopes_are_those_of_autograd(name, side):
    loss = zoo.loss(name)
    found = unlearning_losses.slopes(loss, side, BEFORE)
    for place in (0, 60, 119):
        inputs = {}
        for each, chance in BEFORE.items():
            for key in (f"log_probs_{each}", f"ref_log_probs_{each}"):
                inputs[key] = torch.full((8,), math.log(chance), dtype=torch.float64)
            inputs[f"mask_{each}"] = torch.ones(8, dtype=torch.float64)
        moved = inputs[f"log_probs_{side}"]
        moved[3] = unlearning_losses.POINTS[place]
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(torch_value(loss, inputs), moved)
        assert found[place] == pytest.approx(8 * float(gradient[3]), rel=1e-6, abs=1e-12)


def test_a_factor_makes_no_difference_to_the_curves():
    one, other = (
        unlearning_losses._curve("x", "#000000", True, parse(text, UNLEARNING), BEFORE).slopes
        for text in ("mean(exp(log_probs_forget)) - mean(log_probs_retain)",
                     "7*(mean(exp(log_probs_forget)) - mean(log_probs_retain))")
    )  # fmt: skip
    for side in BEFORE:
        assert one[side] == pytest.approx(other[side])
    assert np.mean([np.abs(each).mean() for each in one.values()]) == pytest.approx(1.0)


def test_curves_begin_at_nothing_forgotten():
    each = Candidate(0, 0, 0, "initial", (), GRAD_DIFF, "x", details={"curve": [[4, 0.5]]})
    assert unlearning_curves.curve(each) == [(0.0, 0.0), (4, 0.5)]


# A mixture puts the proposer before the operator


@pytest.mark.parametrize(
    ("operator", "known"),
    [("usual loss", "usual loss"), ("gp usual loss", "usual loss"), ("gp crossover", "crossover"),
     ("llm refinement", "refinement"), ("llm", "llm"), ("a reproduction", "reproduction"),
     ("crossover", "crossover"), ("own way", "own way")],
)  # fmt: skip
def test_operators_are_known_in_a_mixture(operator, known):
    assert bare(operator) == known


def mixed(*candidates):
    about = {"kind": "unlearning", "higher_is_better": True, "metric": "balance", "output": None,
             "usual_loss": "mean(log_probs_forget)"}  # fmt: skip
    settings = {"method": "mixture", "seed": 0, "population": 2, "epochs": 2,
                "local_search": "none"}  # fmt: skip
    generations = 1 + max(each.generation for each in candidates)
    entries = tuple(map(Entry.of, candidates))
    return Run(None, None, settings, about, entries, generations, None, (), None, True, [])


def one(id, generation, operator, parents=(), error=-0.5, **changes):
    return Candidate(id, generation, id, operator, parents, GRAD_DIFF, str(id), error=error,
                     **changes)  # fmt: skip


def test_copies_and_the_usual_loss_are_recognised_in_a_mixture():
    run = mixed(one(0, 0, "gp usual loss", error=-0.3), one(1, 1, "gp reproduction", (0,)),
                one(2, 2, "gp crossover", (1, 0)))  # fmt: skip
    found = lineage.ancestors(run, run.candidates[2])
    assert list(found) == [0, 2]
    assert found[2].parents == (0,)
    assert lineage._colour("gp usual loss") == lineage._colour("usual loss")
    assert progress._usual(run) == (0.3, "usual loss")


def test_lineage_tells_the_training():
    first = one(0, 0, "initial", epochs=3, rate=0.5)
    text = lineage._item(mixed(first), lineage.Step(Entry.of(first), (), -0.5))
    assert "3 epochs · rate × 0.5" in text


# Mathematics


@pytest.mark.parametrize("name", zoo.names("unlearning"))
def test_known_losses_become_mathematics(name):
    found = formula(zoo.loss(name))
    ElementTree.fromstring(found.replace("&#x", "&amp;#x"))
    assert "<mi>L</mi>" in found
    assert "log_probs" not in found
    assert "<mi>ℓ</mi><mi>F</mi>" in found


def test_the_reference_is_grouped_under_a_power():
    loss = parse("mean(square(ref_log_probs_forget) * log_probs_forget)", UNLEARNING)
    assert "<mrow><mo>(</mo><msubsup>" in formula(loss)


def test_losses_of_tokens_are_read_back_from_the_store(run, tmp_path):
    """A store takes the losses of either language."""
    [of_tokens] = [parse("mean(select(mask_forget, log_probs_forget))", UNLEARNING_TOKENS)]
    mine = replace(one(0, 0, "initial", epochs=2), expression=of_tokens)
    copied(run, tmp_path / "tokens", candidates=[mine], evaluations=False)
    (found,) = read([tmp_path / "tokens"])
    assert found.candidates[0].loss == of_tokens
    assert found.kind == "unlearning"
