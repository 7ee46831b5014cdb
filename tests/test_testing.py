"""The conformance suite: each method keeps its promises, and one that breaks one is caught."""

import itertools
import re
from pathlib import Path

import pytest

from evoloss import testing
from evoloss.discovery import methods, presets
from evoloss.errors import UserError
from evoloss.lang.expr import Input
from evoloss.lang.parse import parse
from evoloss.propose.evolution import Evolution
from evoloss.propose.proposer import Proposal
from evoloss.testing import check_method


@pytest.mark.parametrize("name", methods.PROPOSERS)
def test_every_method_keeps_its_promises(name):
    check_method(name)


@pytest.mark.parametrize("search", ["implicit", "es", "none"])
def test_evomal_keeps_them_with_every_local_search(search):
    check_method("evomal", local_search=search)


def test_the_two_tables_of_methods_name_the_same():
    assert list(methods.PROPOSERS) == list(presets.METHODS)


class Base:
    """A proposer that behaves; what is derived from it does not."""

    def __init__(self, space):
        self.space = space

    def ask(self, generation):
        rng = self.space.random(generation, 0)
        return [
            Proposal(parse(f"square(y - {rng.normal():.3f}*f)"), "given")
            for _ in range(self.space.population)
        ]

    def tell(self, generation, results):
        pass


class TooMany(Base):
    def ask(self, generation):
        return [*super().ask(generation), *super().ask(generation)]


class WithoutPrediction(Base):
    def ask(self, generation):
        return [Proposal(Input("y"), "given")] * self.space.population


class Restless(Base):
    count = itertools.count(1)

    def ask(self, generation):
        return [Proposal(parse(f"square(y - f)*{next(self.count)}"), "given")]


class Forgetful(Base):
    """What it asks depends on how often it was asked, which a resumed search does not know."""

    def __init__(self, space):
        super().__init__(space)
        self.asked = 0

    def ask(self, generation):
        self.asked += 1
        return [Proposal(parse(f"square(y - f)*{self.asked}.5"), "given")] * self.space.population


class Fragile(Base):
    def tell(self, generation, results):
        min(each.error for each in results if each.error is not None)


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (TooMany, "proposed|asked|id"),
        (WithoutPrediction, "does not use"),
        (Restless, "same seed"),
        (Forgetful, "resumed"),
        (Fragile, "empty|iterable"),
    ],
)
def test_a_broken_promise_is_caught(broken, wrong, monkeypatch):
    monkeypatch.setattr(methods, "PROPOSERS", dict(methods.PROPOSERS))
    monkeypatch.setattr(presets, "METHODS", presets.METHODS)
    name = broken.__name__.lower()
    methods.register(name, lambda space, bench: broken(space))
    try:
        with pytest.raises((AssertionError, ValueError, UserError), match=wrong):
            check_method(name)
    finally:
        del presets.METHODS[name]


def test_a_method_of_ones_own_is_registered_once(monkeypatch):
    monkeypatch.setattr(methods, "PROPOSERS", dict(methods.PROPOSERS))
    methods.register("mine", lambda space, bench: Evolution(space), local_search="none")
    try:
        check_method("mine")
        with pytest.raises(UserError, match="'mine' exists"):
            methods.register("mine", lambda space, bench: Evolution(space))
        with pytest.raises(UserError, match="unknown local search"):
            methods.register("other", lambda space, bench: Evolution(space), local_search="x")
    finally:
        del presets.METHODS["mine"]


def test_the_test_split_is_sealed():
    with pytest.raises(AssertionError, match="test split"):
        testing.task().episodes.test(0)


def test_the_method_in_the_documents_keeps_its_promises(monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"# my_method\.py\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(methods, "PROPOSERS", dict(methods.PROPOSERS))
    exec(code, {"__name__": "my_method"})
    try:
        check_method("hill-climber")
    finally:
        del presets.METHODS["hill-climber"]
