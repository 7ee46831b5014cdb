"""Where a problem's files are, as it is kept: a run is resumed and evaluated from any folder."""

import json

import pytest

from evoloss.errors import UserError
from evoloss.unlearn.problem import load_problem

ROLES = ("forget", "retain", "holdout")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The working directory, with three sets, a model's folder and a GGUF file."""
    folder = tmp_path / "home"
    folder.mkdir()
    for role in ROLES:
        rows = [{"question": f"{role} {n}?", "answer": f"{n}"} for n in range(7)]
        (folder / f"{role}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "models" / "small").mkdir(parents=True)
    (folder / "twin.gguf").touch()
    monkeypatch.chdir(folder)
    return folder


def given(folder):
    """The sets by their names in a folder."""
    return {role: str(folder / f"{role}.jsonl") for role in ROLES}


def test_what_is_there_is_kept_by_its_full_name(home, tmp_path, monkeypatch):
    sets = {role: f"{role}.jsonl" for role in ROLES}
    problem = load_problem("models/small", retain_model="twin.gguf", data_dir=".", **sets)
    assert problem.model == problem.source["model"] == str(home / "models" / "small")
    assert problem.retain_model == problem.source["retain_model"] == str(home / "twin.gguf")
    assert {role: problem.source[role] for role in ROLES} == given(home)
    assert problem.source["data_dir"] == str(home)
    monkeypatch.chdir(tmp_path)
    again = load_problem(**problem.source)
    assert (again.model, again.retain_model, again.source) == (
        problem.model, problem.retain_model, problem.source
    )  # fmt: skip
    assert again.data.forget.rows == problem.data.forget.rows


def test_a_link_keeps_its_own_name(home):
    (home / "blob").write_text((home / "forget.jsonl").read_text())
    (home / "linked.jsonl").symlink_to(home / "blob")
    assert load_problem("m", forget="linked.jsonl").source["forget"] == str(home / "linked.jsonl")


def test_names_on_the_hub_stay_as_they_are(home):
    (home / "gpt2").touch()  # a file, which is no model
    for name in ("models/large", "gpt2", "~/models/small", "./nowhere", ""):
        problem = load_problem(name, retain_model=name, forget="forget.jsonl")
        assert problem.model == problem.retain_model == problem.source["model"] == name


def test_runs_that_kept_other_names_still_open(home):
    kept = {"kind": "unlearning", "model": "models/small", "forget": "forget.jsonl"}
    problem = load_problem(**kept)
    assert problem.model == str(home / "models" / "small")
    assert len(problem.data.forget) == 7


def test_some_rows_are_evenly_spaced_and_told(home):
    def chosen(count):
        return load_problem("m", forget="forget.jsonl", forget_rows=count).data.forget

    assert [each.answer for each in chosen(3)] == ["0", "2", "4"]
    assert chosen(3).notes == ("'forget.jsonl': 3 of 7 rows, evenly spaced",)
    assert len(chosen(7)) == len(chosen(9)) == 7
    assert chosen(7).notes == ()
    with pytest.raises(UserError, match=r"1 row of 'forget\.jsonl': to keep some for the test"):
        chosen(1)
