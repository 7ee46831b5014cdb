"""The command line: what each command does, every refusal with its text and exit status."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evoloss
from commands import Command, refused
from evoloss import cli
from evoloss.discovery.candidate import Candidate
from evoloss.lang.export.json_form import from_json
from evoloss.lang.parse import parse, parse_expression
from evoloss.runs import losses, new_directory, runs_in, subject
from evoloss.store import Store

SMALL = (
    "--population", "8", "--generations", "2", "--fitness-steps", "40", "--local-steps", "5",
    "--eval-steps", "30",
)  # fmt: skip


def process(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which hears Ctrl-C as in a terminal.

    A shell's background jobs ignore SIGINT and hand that down to their children.
    """
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from evoloss.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(evoloss.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one small finished search, with what it said beside it."""
    directory = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.chdir(directory)
        patch.setattr(sys, "argv", ["evoloss", "search", "diabetes", "--out", "run", *SMALL])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == 0
    (directory / "out.txt").write_text(said.getvalue())
    return directory / "run"


def a_run(directory: Path, *, source: dict[str, Any] | None, scored: bool = True) -> None:
    """A broken-off run, made by hand."""
    candidate = Candidate(
        0, 0, 0, "initial", (), parse("abs(y - f)"), "abs(y - f)", error=0.5, steps=10
    )
    about = {
        "task": "mine", "network": "linear", "metric": "accuracy", "higher_is_better": True,
        "output": "softmax", "usual_loss": "square(y - f)", "stacking": "loop",
    }  # fmt: skip
    settings = {"preset": "fast", "seed": 4, "generations": 9}
    with Store.create(directory, task=source, settings=settings, about=about) as store:
        if scored:
            store.commit(0, [candidate], {"training": 2.0})


# What works


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["evoloss", "--help"]
from evoloss.cli import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "numba", "scipy", "sklearn", "sympy", "pandas", "pyarrow"}
    print("heavy:", sorted(heavy & set(sys.modules)))
    own = (name for name in sys.modules if name.startswith("evoloss."))
    print("own:", *sorted(name for name in own if not name.startswith("evoloss.cli")))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(evoloss.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "heavy: []" in done.stdout
    own = "discovery", "discovery.local_searches", "discovery.presets", "errors", "wording"
    assert "own: " + " ".join(f"evoloss.{name}" for name in own) + "\n" in done.stdout
    for command in ("search", "resume", "evaluate", "export", "show", "runs", "tasks", "zoo"):
        assert re.search(rf"^\W*{command} ", done.stdout, re.MULTILINE)


def test_a_search_ends_with_the_whole_report(finished: Path) -> None:
    out = (finished.parent / "out.txt").read_text()
    for part in (
        "task diabetes, network linear, run run",
        "note: ",
        "generation 1/2 | best ",
        "generation 2/2 | best ",
        "Pareto front",
        "Test data of diabetes, 5 seeds, 30 training steps each",
        "spent: 16 candidates",
        "evoloss export run -o loss.py",
        "evoloss show run",
        "ended with its budget generations: 2 of 2 generations used",
        "evoloss resume run --generations 4",
    ):
        assert part in out
    assert re.search(r"usual +[\d.]+ +[\d.e-]+ +square\(y - f\)", out)
    assert re.search(r"(better than the usual|WORSE than the usual|No difference)", out)
    with Store.open(finished, write=False) as store:
        assert store.outcome is not None
        assert store.generations == 2
        [record] = store.evaluations()
        best = losses(store).best
    assert best is not None
    assert [len(row["scores"]) for row in record["rows"]] == [5, 5]
    assert parse_expression(record["rows"][0]["formula"]) == best.expression
    assert str(best) in out


def test_show(finished: Path, evo: Command) -> None:
    status, out, _ = evo("show", finished)
    assert status == 0
    for part in (
        "finished, generation 2/2", "Pareto front", "Best ", "Test data of diabetes",
        "spent: 16 candidates",
    ):  # fmt: skip
        assert part in out
    data = json.loads(evo("show", finished, "--json").out)
    assert data["settings"]["population"] == 8
    assert sum(data["fates"].values()) == data["candidates"] == 16
    assert data["best"] in data["front"]
    assert len(data["evaluations"]) == 1


def test_runs(finished: Path, evo: Command, tmp_path: Path) -> None:
    assert evo("runs").out == "no runs in 'runs': start one with `evoloss search TASK`\n"
    a_run(tmp_path / "runs" / "mine-1", source=None)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.db").write_text("nonsense " * 1000)
    _, out, _ = evo("runs")
    assert re.search(r"runs/mine-1 +mine +linear +fast +4 +1/9 +accuracy -0.5 +broken off", out)
    assert "damaged or not a run" in out
    [data] = json.loads(evo("runs", finished, "--json").out)
    assert (data["state"], data["generations"], data["process"]) == ("finished", 2, None)
    with Store.open(tmp_path / "runs" / "mine-1", write=True):
        [_, mine] = json.loads(evo("runs", "--json").out)
        assert (mine["state"], mine["process"]) == ("running", os.getpid())


def test_resuming_a_finished_run_reports_again(finished: Path, evo: Command) -> None:
    status, out, _ = evo("resume", finished, "--eval-seeds", 2, "--eval-steps", 5, "--quiet")
    assert status == 0
    assert "Test data of diabetes, 2 seeds, 5 training steps each" in out


def test_a_budget_is_named_kept_and_raised(evo: Command) -> None:
    quick = ("--eval-seeds", 1, "--eval-steps", 5, "--quiet")
    small = (*SMALL[:2], *SMALL[4:8])
    _, out, _ = evo("search", "diabetes", "--out", "run", *small, *quick, "--max-steps", 9)
    said = re.search(
        r"ended with its budget max_steps: (\d+) of 9 gradient steps used, "
        r"for a generation that has begun is finished; the finalists took [\d,]+ more\n", out
    )  # fmt: skip
    assert said
    assert out.endswith("more of it:    evoloss resume run --max-steps 18\n")
    assert f"ended with its budget max_steps: {said[1]} of 9 " in evo("show", "run").out
    described = json.loads(evo("show", "run", "--json").out)
    assert described["ended"] == {"budget": "max_steps", "limit": 9, "used": int(said[1])}
    done = evo("resume", "run", *quick, "--max-steps", 8)
    assert (done.status, done.out) == (2, "task diabetes, network linear, run run\n" + "".join(
        line + "\n" for line in out.splitlines() if line.startswith("note: ")
    ))  # fmt: skip
    assert "max_steps is 9 in this run: give more than that, not 8" in done.err
    more = int(said[1]) + 1
    _, out, _ = evo("resume", "run", *quick, "--max-steps", more)
    assert f"of {more:,} gradient steps used" in out
    with Store.open(Path("run"), write=False) as store:
        assert (store.generations, store.settings["max_steps"]) == (2, more)


def test_evaluating_a_run_keeps_the_record(finished: Path, evo: Command) -> None:
    before = len(json.loads(evo("show", finished, "--json").out)["evaluations"])
    status, out, _ = evo("evaluate", finished, "--seeds", 2, "--steps", 5)
    assert status == 0
    assert "the found loss" in out.lower()
    records = json.loads(evo("show", finished, "--json").out)["evaluations"]
    assert len(records) == before + 1
    assert records[-1]["steps"] == 5


@pytest.mark.parametrize("loss", ["mae", "abs(y - f)"])
def test_evaluating_a_known_loss_or_an_expression(loss: str, evo: Command) -> None:
    status, out, _ = evo("evaluate", loss, "--task", "diabetes", "--seeds", 2, "--steps", 5)
    assert status == 0
    assert "abs(y - f)" in out


def test_export(finished: Path, evo: Command, tmp_path: Path) -> None:
    printed = evo("export", finished)
    assert printed.status == 0
    assert evo("export", finished, "-o", "loss.py").status == 0
    assert (tmp_path / "loss.py").read_text() == printed.out
    refused = evo("export", finished, "-o", "loss.py", "--format", "latex")
    assert (refused.status, refused.err) == (
        2, "evoloss: error: 'loss.py' exists: overwrite it with --force\n",
    )  # fmt: skip
    assert (tmp_path / "loss.py").read_text() == printed.out
    assert evo("export", finished, "-o", "loss.py", "--format", "latex", "--force").status == 0
    assert "y" in (tmp_path / "loss.py").read_text()
    assert "import" not in (tmp_path / "loss.py").read_text()


def test_an_exported_run_brings_its_own_transform(evo: Command, tmp_path: Path) -> None:
    a_run(tmp_path / "run", source=None)
    assert "softmax" in evo("export", "run").out
    assert "softmax" not in evo("export", "run", "--transform", "identity").out
    assert "softmax" not in evo("export", "abs(y - f)").out


def test_the_lists(evo: Command) -> None:
    assert "diabetes" in evo("tasks").out
    assert re.search(r"^mse +regression +square\(y - f\)$", evo("zoo").out, re.MULTILINE)


def test_the_next_free_directory(evo: Command, tmp_path: Path) -> None:
    assert new_directory("diabetes") == Path("runs/diabetes-1")
    (tmp_path / "runs" / "my-data.v2-1").mkdir(parents=True)
    assert new_directory("my data.v2") == Path("runs/my-data.v2-2")
    assert new_directory("../up") == Path("runs/up-1")


def test_the_best_of_an_unfinished_run_is_the_lowest_error(tmp_path: Path) -> None:
    a_run(tmp_path, source=None)
    with Store.open(tmp_path, write=True) as store:
        [first] = store.candidates()
        better = replace(
            first, id=1, generation=1, error=0.25, expression=parse("square(square(y - f))")
        )
        store.commit(1, [better, replace(better, id=2, error=0.3)], {})
        found = losses(store)
    assert found.best is not None
    assert found.best.candidate == better
    assert [each.candidate.id for each in found.front] == [0, 1]
    assert subject(str(tmp_path)).expression == better.expression


def test_a_run_directory_itself_is_a_folder_of_one_run(finished: Path) -> None:
    assert runs_in(finished) == runs_in(finished.parent) == [finished]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search diabets", "unknown task 'diabets' (did you mean 'diabetes'?)"),
        ("search diabetes --preset quick", "unknown preset 'quick': choose fast or paper"),
        ("search diabetes --population 0", "population is 0: give at least 1"),
        ("search diabetes --local-search tabu", "unknown local search 'tabu': choose unrolled or"),
        ("search diabetes --method magic", "unknown method 'magic'"),
        ("search diabetes --stacking high", "unknown stacking 'high'"),
        ("search diabetes --target price", "--target is for table files only"),
        ("search diabetes --network mpl", "mpl"),
        ("search missing.csv", "missing.csv"),
        ("resume nowhere", "'nowhere' is not a run: it has no run.db"),
        ("show nowhere", "'nowhere' is not a run: it has no run.db"),
        ("runs nowhere", "folder 'nowhere' does not exist"),
        ("evaluate mse", "'mse' says nothing of a task: name one with --task"),
        (
            "evaluate runs/gone-1 --task diabetes",
            "'runs/gone-1' is no run directory, no known loss",
        ),
        ("evaluate y*y --task diabetes", "the loss does not use f"),
        (f"evaluate {'+'.join(['y*y'] * 100)} --task diabetes", "the loss does not use f"),
        ("export mse --format onnx", "unknown format 'onnx': known: torch, latex, sympy, json"),
        (
            "export mse --transform relu",
            "unknown transform 'relu': choose identity, sigmoid, softm",
        ),
        ("search digits --set implicit_term=3", "did you mean 'implicit_terms'?"),
        ("search digits --set implicit_terms=few", "implicit_terms=few: give a value of type int"),
        ("search digits --set racing", "'racing' sets nothing: write NAME=VALUE"),
        ("export mse -o no/where.py", "cannot write 'no/where.py': No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(evo: Command, arguments: str, message: str) -> None:
    refused(evo(*arguments.split()), message)
    assert not Path("runs").exists(), "a refused search leaves a directory behind"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu", "device 'gpu': give cpu, cuda, cuda:0 and so on, or auto"),
        ("cuda:x", "device 'cuda:x': give cpu, cuda, cuda:0 and so on, or auto"),
        ("cuda", "device 'cuda': torch finds no GPU"),
        ("cuda:1", "device 'cuda:1': torch finds no GPU"),
    ],
)
def test_a_device_that_is_not_there(
    device: str, text: str, finished: Path, evo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(evo("search", "diabetes", "--device", device), text)
    refused(evo("resume", finished, "--device", device, "--generations", "3"), text)
    assert not Path("runs").exists()
    with Store.open(finished, write=False) as store:
        assert (store.settings["device"], store.settings["generations"]) == ("cpu", 2)


def test_a_run_of_a_device_that_is_gone_goes_on_where_it_is_told_to(
    evo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        evo("search", "diabetes", "--device", "cpu", "--out", "run", *SMALL, "--quiet").status == 0
    )
    with Store.open(Path("run"), write=True) as store:
        store.extend({**store.settings, "device": "cuda"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(evo("resume", "run"), "device 'cuda': torch finds no GPU")
    done = evo("resume", "run", "--device", "auto", "--generations", "3", "--eval-steps", "30")
    assert done.status == 0, done.err
    with Store.open(Path("run"), write=False) as store:
        assert (store.settings["device"], store.settings["generations"]) == ("cpu", 3)
        assert len(store.candidates()) == 24


def test_an_expression_that_does_not_parse_shows_where(evo: Command) -> None:
    status, _, err = evo("export", "square(y - g)")
    assert status == 2
    assert err == (
        "evoloss: error: unknown input 'g' (inputs: y, f)\n"
        "  square(y - g)\n"
        "             ^\n"
    )  # fmt: skip


def test_wrong_usage_is_status_2(evo: Command) -> None:
    assert evo("search").status == 2
    assert evo("search", "diabetes", "--population", "many").status == 2
    assert evo("search", "diabetes", "--no-such-option").status == 2
    assert evo("invent").status == 2


def test_an_existing_run_is_not_searched_over(finished: Path, evo: Command) -> None:
    status, _, err = evo("search", "diabetes", "--out", finished, *SMALL)
    assert status == 2
    assert "holds a run already: continue it with `evoloss resume" in err


def test_any_candidate_of_a_run_can_be_taken(finished: Path, evo: Command) -> None:
    with Store.open(finished, write=False) as store:
        best, front = losses(store).best, losses(store).front
        first, evaluations = store.history()[0], len(store.evaluations())
    assert best is not None
    for each in (best, *front):
        found = evo("export", f"{finished}:{each.candidate.id}", "--format", "json").out
        assert from_json(found) == each.expression
    assert evo("export", finished, "--format", "json").out == evo(
        "export", f"{finished}:{best.candidate.id}", "--format", "json"
    ).out  # fmt: skip
    status, out, _ = evo("evaluate", f"{finished}:{first.id}", "--seeds", 2, "--steps", 3)
    assert status == 0
    assert "chosen" in out
    with Store.open(finished, write=False) as store:
        assert len(store.evaluations()) == evaluations, "it would be taken for the best loss's"
    status, _, err = evo("export", f"{finished}:100000")
    assert status == 2
    assert "has no candidate 100000: its last one is" in err


def test_a_run_in_use_is_refused(finished: Path, evo: Command) -> None:
    with Store.open(finished, write=True):
        for command in ("resume", "evaluate"):
            status, _, err = evo(command, finished)
            assert status == 2
            assert f"is being written by process {os.getpid()}" in err


def test_a_run_of_a_task_in_memory_is_resumed_in_python(evo: Command, tmp_path: Path) -> None:
    a_run(tmp_path / "run", source=None)
    status, _, err = evo("resume", "run")
    assert status == 2
    assert "resume it there, with evoloss.resume(run, task=...)" in err


def test_a_run_without_a_scored_loss(evo: Command, tmp_path: Path) -> None:
    a_run(tmp_path / "run", source=None, scored=False)
    status, _, err = evo("export", "run")
    assert status == 2
    assert "has no scored loss yet" in err
    assert "no loss has been scored yet" in evo("show", "run").out


def test_a_defect_is_not_called_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(sys, "argv", ["evoloss", "show", "anything"])
    monkeypatch.setattr(Store, "open", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_ctrl_c_says_how_to_resume(tmp_path: Path) -> None:
    searching = process(
        tmp_path, "search", "diabetes", "--out", "my run", *SMALL, "--generations", "100000"
    )
    assert searching.stdout is not None
    for line in searching.stdout:
        if line.startswith("generation 2/"):
            break
    searching.send_signal(signal.SIGINT)
    _, err = searching.communicate(timeout=60)
    assert searching.returncode == 130, err
    with Store.open(tmp_path / "my run", write=False) as store:
        saved = store.generations
    assert saved >= 2
    assert err == f"stopped after generation {saved}; resume with: evoloss resume 'my run'\n"


def test_ctrl_c_before_anything_is_saved(
    evo: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from evoloss.discovery import search as searching

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "search", interrupted)
    status, _, err = evo("search", "diabetes", *SMALL)
    assert (status, err) == (130, "stopped before anything was saved\n")


def test_a_full_disk_says_what_is_safe(
    evo: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create = Store.create.__func__  # type: ignore[attr-defined]

    def small_disk(cls: type[Store], *arguments: Any, **options: Any) -> Store:
        store: Store = create(cls, *arguments, **options)
        store._database.read("PRAGMA max_page_count = 12")
        return store

    monkeypatch.setattr(Store, "create", classmethod(small_disk))
    status, out, err = evo("search", "diabetes", "--out", "run", *SMALL, "--generations", 100)
    assert status == 2
    assert "database or disk is full" in err
    assert "make room, then `evoloss resume run`" in err
    with Store.open(tmp_path / "run", write=False) as store:
        saved = store.generations
        assert len(store.candidates()) == 8 * saved
    assert out.count("| best ") == saved < 100
