"""A run on disk: exact round trips, whole generations only, one writer, and clear refusals."""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evoloss
from evoloss.discovery.archive import Archive
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.settings import Settings
from evoloss.errors import UserError
from evoloss.lang.expr import Expr, size
from evoloss.lang.parse import parse, parse_expression
from evoloss.propose.ml3 import fresh_network
from evoloss.store import Store
from evoloss.store.entry import Entry
from evoloss.store.schema import COLUMNS, TABLES, formula, from_row, to_row
from strategies import expressions

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(evoloss.__file__).parents[1])}
POPULATION = 20
KILLS = int(os.environ.get("EVOLOSS_KILLS", "4"))
TASK = {"spec": "diabetes", "network": None, "seed": 0}
SETTINGS = {"seed": 3, "population": POPULATION, "fitness_steps": None}


def generation(number: int, population: int = POPULATION) -> list[Candidate]:
    """Distinct candidates, large enough that a generation fills many pages of the database."""
    loss = parse("square(y - f)")
    return [
        Candidate(
            id=number * population + index,
            generation=number,
            index=index,
            operator="crossover",
            parents=(index, number),
            expression=loss,
            canonical="square(f - y)",
            phi=(1.0 + number, 0.1 * index, 0.5),
            fate=Fate.FAILED if index % 2 else Fate.SCORED,
            reason="x" * 2000 if index % 2 else "",
            error=None if index % 2 else number + index / 3,
            steps=7,
        )
        for index in range(population)
    ]


def new_run(directory: Path) -> Store:
    return Store.create(directory, task=TASK, settings=SETTINGS, about={"metric": "MSE"})


def stored(directory: Path) -> tuple[int, tuple[Candidate, ...]]:
    with Store.open(directory, write=False) as store:
        return store.generations, store.candidates()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs `code` with this module's `generation` and `Store` at hand."""
    head = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
    head += "import os, signal\nfrom pathlib import Path\nfrom test_store import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    expression: Expr = draw(expressions())
    whole = st.integers(0, 2**53)
    weights = st.lists(st.floats(), min_size=size(expression) - 1, max_size=size(expression) - 1)
    return Candidate(
        id=draw(whole),
        generation=draw(whole),
        index=draw(whole),
        operator=draw(st.text()),
        parents=tuple(draw(st.lists(whole, max_size=3))),
        expression=expression,
        canonical=draw(st.text()),
        phi=draw(st.none() | weights.map(tuple)),
        fate=draw(st.sampled_from(Fate)),
        reason=draw(st.text()),
        error=draw(st.none() | st.floats(allow_nan=False)),
        same_as=draw(st.none() | whole),
        steps=draw(whole),
    )


@given(candidates())
def test_a_candidate_comes_back_bit_for_bit(candidate: Candidate) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(TABLES)
        places = ", ".join("?" * len(to_row(candidate)))
        connection.execute("INSERT INTO generations VALUES (?, '')", (candidate.generation,))
        connection.execute(
            f"INSERT INTO candidates ({COLUMNS}) VALUES ({places})", to_row(candidate)
        )
        [row] = connection.execute(f"SELECT {COLUMNS} FROM candidates")
    finally:
        connection.close()
    # repr tells -0.0 from 0.0 and lets NaN be equal to itself, which == does not.
    assert repr(from_row(row)) == repr(candidate)


@given(candidates())
def test_the_formula_is_the_loss_with_its_weights(candidate: Candidate) -> None:
    text = formula(candidate)
    if text is None:
        assert candidate.phi is not None
    else:
        assert parse_expression(text) == candidate.loss


def test_what_is_written_is_read(tmp_path: Path) -> None:
    first, second = generation(0), generation(1)
    with new_run(tmp_path / "run") as store:
        store.commit(0, first, {"tuning": 1.5, "training": 2.0})
        store.commit(1, second, {"training": 0.25})
        store.add_evaluation({"steps": 500, "rows": [{"label": "found", "scores": [0.1, 0.2]}]})
        assert store.outcome is None
        store.finish({"best": 3})
    with Store.open(tmp_path / "run", write=False) as store:
        assert (store.task, store.settings) == (TASK, SETTINGS)
        assert store.about["metric"] == "MSE"
        assert set(store.about) == {"metric", "created", "evoloss"}
        assert store.generations == 2
        assert store.candidates() == (*first, *second)
        assert store.candidates(1) == tuple(second)
        assert store.candidates(2) == ()
        assert store.best_error == 0.0
        assert store.seconds() == {"tuning": 1.5, "training": 2.25}
        assert store.outcome == {"best": 3}
        assert store.evaluations()[0]["rows"][0]["scores"] == [0.1, 0.2]


def test_a_task_that_lives_only_in_memory_has_no_source(tmp_path: Path) -> None:
    Store.create(tmp_path, task=None, settings={}, about={}).close()
    with Store.open(tmp_path, write=False) as store:
        assert store.task is None
        assert (store.generations, store.candidates(), store.best_error) == (0, (), None)


def test_a_finished_commit_leaves_one_file_that_is_the_whole_run(tmp_path: Path) -> None:
    with new_run(tmp_path / "run") as store:
        store.commit(0, generation(0), {})
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "run.db").write_bytes((tmp_path / "run" / "run.db").read_bytes())
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.db", "run.lock"}
    assert stored(tmp_path / "copy") == (1, tuple(generation(0)))


def test_a_generation_is_saved_once(tmp_path: Path) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
        with pytest.raises(UserError):
            store.commit(0, [replace(each, id=each.id + 999) for each in generation(0)], {})
        assert store.candidates() == tuple(generation(0))


# Statement 1 begins, 2 inserts the generation, 3 to 22 its candidates, 23 commits.
@pytest.mark.parametrize("statement", [1, 2, 3, 12, 22, 23])
def test_killed_within_a_commit(tmp_path: Path, statement: int) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
    process = python(
        """
store = Store.open(Path(sys.argv[1]), write=True)
# A cache of one page: what is inserted reaches the file before the commit.
store._database.connection.execute("PRAGMA cache_size = 1")
seen = []
def trace(sql):
    seen.append(sql)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
store._database.connection.set_trace_callback(trace)
store.commit(1, generation(1), {})
""",
        tmp_path,
        statement,
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    if statement > 5:
        assert (tmp_path / "run.db-journal").exists(), "nothing was on its way to the file"
    assert stored(tmp_path) == (1, tuple(generation(0)))
    with Store.open(tmp_path, write=True) as store:
        store.commit(1, generation(1), {})
        assert store.generations == 2


def test_killed_at_random_moments(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    moments = random.Random(1)
    saved = 0
    for _ in range(KILLS):
        process = python(
            """
with Store.open(Path(sys.argv[1]), write=True) as store:
    print("ready", flush=True)
    for number in range(store.generations, 100_000):
        store.commit(number, generation(number), {})
""",
            tmp_path,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.01, 0.2))
        process.kill()
        process.communicate(timeout=60)
        finished, found = stored(tmp_path)
        assert finished >= saved
        assert found == tuple(each for number in range(finished) for each in generation(number))
        saved = finished
    assert saved > 0


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    process = python(
        """
store = Store.open(Path(sys.argv[1]), write=True)
print("ready", flush=True)
signal.pause()
""",
        tmp_path,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UserError, match=f"being written by process {process.pid}"):
            Store.open(tmp_path, write=True)
        with pytest.raises(UserError, match=f"being written by process {process.pid}"):
            new_run(tmp_path)
        with Store.open(tmp_path, write=False) as store:
            assert store.writer == process.pid
    finally:
        process.kill()
        process.communicate(timeout=60)
    with Store.open(tmp_path, write=True) as store:
        store.commit(0, generation(0), {})
    with Store.open(tmp_path, write=False) as store:
        assert store.writer is None


def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    process = python(
        """
with Store.open(Path(sys.argv[1]), write=True) as store:
    print("ready", flush=True)
    for number in range(60):
        store.commit(number, generation(number), {})
""",
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    counts = []
    while process.poll() is None:
        _, found = stored(tmp_path)
        whole, rest = divmod(len(found), POPULATION)
        assert rest == 0, "a reader saw a part of a generation"
        counts.append(whole)
    assert process.returncode == 0, process.communicate()[1]
    process.communicate()
    assert counts == sorted(counts)
    assert stored(tmp_path)[0] == 60


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    with Store.open(tmp_path, write=False) as store, pytest.raises(UserError, match="readonly"):
        store.commit(0, generation(0), {})


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
        [(pages,)] = store._database.read("PRAGMA page_count")
        store._database.read(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(UserError, match=r"disk is full.* safe: make room, then `evoloss res"):
            store.commit(1, generation(1), {})
        assert store.candidates() == tuple(generation(0))
        store._database.read("PRAGMA max_page_count = 100000")
        store.commit(1, generation(1), {})
    assert stored(tmp_path) == (2, (*generation(0), *generation(1)))


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
    with pytest.raises(UserError, match=r"holds a run already: continue it with `evoloss resume"):
        new_run(tmp_path)
    assert stored(tmp_path) == (1, tuple(generation(0)))


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "run.db").touch()
    with pytest.raises(UserError, match="it is empty"):
        Store.open(tmp_path, write=False)
    new_run(tmp_path).close()


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no run\.db"):
        Store.open(tmp_path / "nowhere", write=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another --out"):
        new_run(tmp_path / "file")


def test_a_run_of_another_version(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="has format 99, this evoloss reads format 2"):
        Store.open(tmp_path, write=False)


def test_some_other_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    connection.close()
    for attempt in (lambda: Store.open(tmp_path, write=True), lambda: new_run(tmp_path)):
        with pytest.raises(UserError, match=r"some other database|holds a run already"):
            attempt()


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("surely this is not a database of any kind\n" * 200)
    for write in (True, False):
        with pytest.raises(UserError, match="damaged or not a run"):
            Store.open(tmp_path, write=write)
    with pytest.raises(UserError, match="damaged or not a run"):
        new_run(tmp_path)


def test_a_damaged_page_is_told_in_a_line(tmp_path: Path) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
    file = tmp_path / "run.db"
    whole = bytearray(file.read_bytes())
    size = int.from_bytes(whole[16:18], "big")
    for page in range(1, len(whole) // size):
        spoilt = whole.copy()
        spoilt[page * size : page * size + 8] = b"\xff" * 8
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"damaged .*: restore it from a copy") as refused:
            Store.open(tmp_path, write=False).history()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", [60, 5000, 0.5, 0.97])
def test_a_truncated_file(tmp_path: Path, kept: float) -> None:
    with new_run(tmp_path) as store:
        store.commit(0, generation(0), {})
    file = tmp_path / "run.db"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(UserError, match=r"damaged|not a run"):
        Store.open(tmp_path, write=True)
    file.write_bytes(whole)
    Store.open(tmp_path, write=True).close()


def test_entries_are_the_candidates_unread(tmp_path):
    """With summaries, as runs are written now, and without, as by earlier versions."""
    loss, network = parse("square(y - f)"), fresh_network(np.random.default_rng(0))
    some = [
        Candidate(0, 0, 0, "initial", (), loss, "a", (2.0, 1.0, 0.5), error=-0.0),
        Candidate(1, 0, 1, "initial", (0, 0), loss, "b", (math.nan, 1.0, 1.0), Fate.FAILED, "NaN"),
        Candidate(2, 0, 2, "initial", (), network, "c", error=0.1, epochs=3, rate=0.5,
                  details={"curve": [[1, 0.5]]}),
        Candidate(3, 0, 3, "initial", (), loss, "a", None, Fate.DUPLICATE, same_as=0),
    ]  # fmt: skip
    with new_run(tmp_path / "run") as store:
        store.commit(0, some, {"training": 1.0})
        old = store.entries()
        archive = Archive(Settings(equivalence=False), lambda loss: None)
        store.add_summaries([archive.summary(each) for each in some])
        new = store.entries()
    assert new == old == tuple(map(Entry.of, some))
    assert new[0].loss == some[0].loss
    assert new[1].loss == loss  # its weights ran away
    assert new[2].loss == network
    assert new[2].details == some[2].details
    assert [each.tuned for each in new] == [True, True, False, False]
    assert len(new[2].shown) < 60 < len(new[2].text)
