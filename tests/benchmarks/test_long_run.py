"""The long run in short: it is what its commands take, and what they read of it does not grow."""

import contextlib
import csv
import io
import re
from functools import cache

import pytest

from evoloss import report
from evoloss.discovery.candidate import Fate
from evoloss.lang import parse
from evoloss.store import Store
from toy_search import benchmark, resumed

long_run = benchmark("long_run")


def test_it_is_taken_by_the_commands(tmp_path, monkeypatch):
    """But for the report, which trains networks."""
    run = tmp_path / "run"
    arguments = ["resume", "show", "--candidates", "50", "--rounds", "1", "--out", str(run)]
    monkeypatch.setattr("sys.argv", ["long_run", *arguments])
    with contextlib.redirect_stdout(io.StringIO()) as said:
        long_run.main()
    assert re.findall(r"^(\w+): [\d.]+ (?:s|MiB)$", said.getvalue(), re.MULTILINE) == [
        "store", "resume", "show"
    ]  # fmt: skip
    with Store.open(run, write=False) as store:
        assert store.generations == 2
        fates = [each.fate for each in store.candidates()]
    assert {*fates} == {Fate.SCORED, Fate.RACED_OUT, Fate.REJECTED, Fate.FAILED, Fate.DUPLICATE}


def test_a_run_of_the_toy_goes_on(tmp_path):
    long_run.write(tmp_path, 100)
    assert len(resumed(tmp_path).history) == 125


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """By number of candidates, in generations of 5: the page, and how many losses were parsed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_run, "generation", generation)
        return {
            number: reported(tmp_path_factory.mktemp("long"), number) for number in (1000, 4000)
        }


generation = cache(long_run.generation)
"""A longer run begins with the candidates of a shorter one."""


def reported(folder, candidates):
    long_run.write(folder / "run", candidates, population=5)
    counted, read = [], parse.parse_expression
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "evoloss.store.schema.parse_expression",
            lambda *given: counted.append(given) or read(*given),
        )
        report.write([folder / "run"], folder / "report.html")
    return folder / "report.html", len(counted)


@pytest.mark.slow
def test_a_report_parses_and_draws_no_more_of_a_longer_run(reports):
    (short, few), (long, many) = reports.values()
    assert 0 < many <= few + 10 <= 120
    for tag in ("<path", "<li", "<math"):
        assert long.read_text().count(tag) <= 1.1 * short.read_text().count(tag) + 10, tag
    assert long.read_text().count("<use") < 3000, "points"
    assert long.stat().st_size < 3_000_000
    assert "written out are the first" in long.read_text()


@pytest.mark.slow
def test_its_tables_have_all(reports):
    for candidates, (page, _) in reports.items():
        with (page.with_name("report-figures") / "03-fates.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert len(rows) == candidates / 5
        assert sum(sum(map(float, row[2:])) for row in rows) == candidates
        with (page.with_name("report-figures") / "04-front.csv").open(newline="") as file:
            front = [row for row in csv.DictReader(file) if row["on the front"] == "no"]
        assert len(front) == sum(
            each.fate is Fate.SCORED
            for number in range(candidates // 5)
            for each in generation(number, 5)
        )
