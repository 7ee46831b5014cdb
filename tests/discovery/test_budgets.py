"""Budgets: which one ends a search, that it is kept and said, and how a larger one goes on."""

from dataclasses import replace

import pytest

from evoloss.discovery.budgets import BUDGETS, Ending, Spent, ending, raised
from evoloss.discovery.loop_settings import ENDLESS
from evoloss.discovery.search import resume, search
from evoloss.discovery.settings import preset
from evoloss.errors import UserError
from evoloss.store import Store
from evoloss.unlearn.settings import unlearn_settings
from tiny import SEARCH, regression
from toy_search import searched, toy


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"generations": 4}, Ending("generations", 4, 4)),
        ({"max_candidates": 23}, Ending("max_candidates", 23, 20)),
        ({"max_seconds": 1e-9}, None),
        ({"max_steps": 1}, None),
    ],
)
def test_a_budget_ends_the_search_and_is_kept(tmp_path, budget, expected):
    result = searched(tmp_path / "run", **{"generations": ENDLESS, **budget})
    [name] = budget
    assert result.ended.budget == name
    if expected is None:  # a part of a generation more than allowed, and no second generation
        assert result.ended.used >= result.ended.limit == budget[name]
        assert len(result.history) == 5
    else:
        assert result.ended == expected
    with Store.open(tmp_path / "run", write=False) as store:
        assert Ending.of(store.outcome) == result.ended


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize(
    "budget", [{"max_candidates": 17}, {"max_steps": 60}, {"max_seconds": 1e-6}]
)
def test_a_search_for_a_network_ends_by_each_budget(tmp_path, budget, workers, mirror):
    """The generation that passes a limit is finished, and is the last; finalists are said apart."""
    settings = {**SEARCH, "generations": ENDLESS, **budget}
    result = search("tiny:regression", out=tmp_path / "run", workers=workers, **settings)
    [(name, limit)] = budget.items()
    assert (result.ended.budget, result.ended.limit) == (name, limit)
    generations = 1 + result.history[-1].generation
    steps = [0] * generations
    for each in result.history:
        steps[each.generation] += each.steps
    with Store.open(tmp_path / "run", write=False) as store:
        besides = store.outcome["finalists"]
    if name == "max_candidates":
        assert result.ended == Ending(name, limit, len(result.history))
        assert len(result.history) == 12
    elif name == "max_steps":
        assert sum(steps[:-1]) < limit <= sum(steps) == result.ended.used
        assert f"finalists took {besides['steps']:,} more" in str(result.ended)
    else:
        assert generations == 1
        assert f"finalists took {besides['seconds']:,.4g} more" in str(result.ended)


def test_whatever_ends_first():
    settings = toy.ToySettings(generations=9, max_candidates=100, max_steps=50, max_seconds=7.0)
    room = Spent(generations=8, candidates=95, steps=49, seconds=6.9)
    assert ending(settings, room) is None
    for name, used in (("generations", 9), ("candidates", 96), ("steps", 50), ("seconds", 7.0)):
        found = ending(settings, replace(room, **{name: used}))
        assert found.budget == (name if name == "generations" else f"max_{name}")
        assert found.used == used


def test_what_a_language_model_may_use():
    settings = unlearn_settings(method="llm", max_tokens=1_000)
    spent = Spent(1, 8, 10, 1.0, [{"kind": "budget", "budget": "max_tokens", "limit": 1_000.0,
                                   "used": 990}])  # fmt: skip
    assert ending(settings, spent) == Ending("max_tokens", 1_000, 990)
    assert ending(raised(settings, {"max_tokens": 2_000}), spent) is None
    assert ending(replace(settings, max_tokens=None, max_cost=1.0), spent) is None


def test_more_of_a_budget_goes_on_like_an_uninterrupted_search(tmp_path):
    settings = {**SEARCH, "generations": ENDLESS}
    whole = search(regression(), max_candidates=18, **settings)
    short = search(regression(), max_candidates=11, out=tmp_path / "run", **settings)
    assert short.history == whole.history[:6]
    with pytest.raises(UserError, match="max_candidates is 11 in this run: give more than that"):
        resume(tmp_path / "run", task=regression(), max_candidates=11)
    longer = resume(tmp_path / "run", task=regression(), max_candidates=18)
    assert longer.history == whole.history
    assert (longer.best, longer.ended) == (whole.best, whole.ended)
    again = resume(tmp_path / "run", task=regression())
    assert (again.history, again.ended) == (longer.history, longer.ended)


def test_a_proposer_that_has_nothing_more(tmp_path):
    result = search(
        regression(), out=tmp_path / "run", **{**SEARCH, "population": 40, "method": "zoo"}
    )
    assert result.ended == Ending("")
    assert result.ended.option == ""
    assert "nothing more to propose" in str(result.ended)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_candidates": 24}, "max_candidates is 24, less than a generation of 25"),
        ({"max_steps": 0}, "max_steps is 0: give at least 1"),
        ({"max_seconds": 0.0}, "max_seconds is 0: give a number above 0"),
        ({"max_seconds": float("nan")}, "max_seconds is nan: give a number above 0"),
        ({"max_tokens": 5}, "max_tokens is 5, but no language model is asked"),
        ({"max_cost": 0.5}, r"max_cost is 0\.5, but no language model is asked"),
    ],
)
def test_a_budget_that_will_not_do(changes, message):
    with pytest.raises(UserError, match=message):
        preset("fast", **changes)


def test_the_closing_line():
    assert str(Ending("max_steps", 1_000, 1_250)) == (
        "the search ended with its budget max_steps: 1,250 of 1,000 gradient steps used, "
        "for a generation that has begun is finished"
    )
    assert str(Ending("max_steps", 1_000, 1_000, 1_400)).endswith(
        "1,000 of 1,000 gradient steps used; the finalists took 1,400 more"
    )
    assert Ending("max_seconds", 0.5, 0.7213).option == "--max-seconds 1"
    for name in BUDGETS:
        assert Ending(name, 10, 10).option == f"--{name.replace('_', '-')} 20"


def test_only_budgets_are_raised():
    with pytest.raises(UserError, match="'population' is no budget: raise one of generations"):
        raised(preset("fast"), {"population": 50})
