"""The soak in short: 500 generations, counted and not timed."""

import gc
import itertools

from hypothesis import given
from hypothesis import strategies as st

from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.discovery.leaders import Leaders
from evoloss.store import Store
from toy_search import benchmark, resumed, searched

soak = benchmark("soak")
GENERATIONS = 500


def test_files_memory_and_store_of_a_long_search(tmp_path):
    points = soak.soak(tmp_path / "run", GENERATIONS, 5)
    assert [each.generations for each in points] == list(range(50, 501, 50))
    assert {each.files for each in points} == {points[0].files}
    assert points[-1].memory < points[1].memory + 40, "MiB, of 2,000 candidates"
    first, last = points[1], points[-1]
    assert last.store / last.candidates <= first.store / first.candidates
    with Store.open(tmp_path / "run", write=False) as store:
        assert len(store.candidates()) == 5 * GENERATIONS


def test_a_generation_reads_no_more_however_many_came_before(tmp_path, monkeypatch):
    """Candidates that are read again in a generation: originals of duplicates, and nothing else."""
    read = []
    between = Store._between
    monkeypatch.setattr(
        Store, "_between", lambda store, first, end: read.append(end - first) or between(
            store, first, end)
    )  # fmt: skip
    counts = []
    searched(tmp_path / "run", generations=120, observer=lambda p: p.stage == "saved"
             and counts.append(sum(read)))  # fmt: skip
    assert counts[-1] - counts[-41] <= 40 * 5


def test_candidates_do_not_stay_in_memory(tmp_path):
    """But for the latest, which are read most."""

    def candidates():
        return sum(type(each) is Candidate for each in gc.get_objects())

    gc.collect()
    others, held = candidates(), []
    searched(
        tmp_path / "run", generations=60, population=50,
        observer=lambda p: p.stage == "saved" and p.generation == 60 and held.append(candidates()),
    )  # fmt: skip
    assert 0 < held[0] - others < 1_500 < 60 * 50


def test_resuming_a_long_run_parses_only_what_it_needs(tmp_path, monkeypatch):
    whole = searched(generations=60)
    searched(tmp_path / "run", generations=40)
    with Store.open(tmp_path / "run", write=True) as store:
        store.extend({**store.settings, "generations": 60})
    parsed = []
    between = Store._between
    monkeypatch.setattr(
        Store, "_between", lambda store, first, end: parsed.append(end - first) or between(
            store, first, end)
    )  # fmt: skip
    at_start = []
    result = resumed(tmp_path / "run", observer=lambda p: at_start.append(sum(parsed)))
    assert at_start[0] <= 15, "the last generation, its originals and the best"
    assert result.history == whole.history
    assert result.best == whole.best


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=14))
def test_the_leaders_are_those_of_sorting_everything(rows):
    summaries = [
        Summary(id, 0, Fate.SCORED, float(error), 1, b"", complexity, None, None)
        for id, (complexity, error) in enumerate(rows)
    ]
    leaders = Leaders(3)
    for each in summaries:
        leaders.add(each)
    assert leaders.best == sorted(summaries, key=lambda each: each.merit)[:3]
    by_size = sorted(summaries, key=lambda each: (each.complexity, each.error, each.id))
    lower = [0, *itertools.accumulate((each.error for each in by_size), min)]
    assert leaders.front == [
        each for place, each in enumerate(by_size) if not place or each.error < lower[place]
    ]


def test_a_run_without_the_archives_notes_gets_them(tmp_path):
    """As runs of earlier versions are."""
    whole = searched(generations=30)
    searched(tmp_path / "run", generations=20)
    with Store.open(tmp_path / "run", write=True) as store:
        store.extend({**store.settings, "generations": 30})
        noted = store.summaries()
        store._database.connection.execute("DROP TABLE keys")
    assert resumed(tmp_path / "run").history == whole.history
    with Store.open(tmp_path / "run", write=False) as store:
        assert store.summaries()[:100] == noted
        assert len(store.summaries()) == 150
