"""The curves, the races and the counts of operations, each against something that knows better."""

import itertools
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from torch.utils.flop_counter import FlopCounterMode

from evoloss.lang.expr import size
from evoloss.tasks.image_networks import lenet5
from toy_search import benchmark

curves, limits, race = benchmark("curves"), benchmark("limits"), benchmark("race")
scaling, scaling_search = benchmark("scaling"), benchmark("scaling_search")


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-6, 1e6)), min_size=3, max_size=9,
                unique_by=lambda point: point[0]))  # fmt: skip
def test_the_power_law_is_a_line_through_the_logarithms(points):
    sizes, seconds = zip(*points, strict=True)
    wanted = linregress(np.log(sizes), np.log(seconds))
    found = curves.power_law(sizes, seconds)
    assert found.exponent == pytest.approx(wanted.slope, rel=1e-6, abs=1e-9)
    assert found.error == pytest.approx(wanted.stderr, rel=1e-4, abs=1e-7)
    assert np.log(found.constant) == pytest.approx(wanted.intercept, rel=1e-6, abs=1e-7)


def test_one_size_has_no_power_law():
    with pytest.raises(ValueError, match="two or more"):
        curves.power_law([3, 3], [1.0, 2.0])


def test_rounds_go_back_and_forth_and_the_median_counts():
    order, numbers = [], itertools.count(1)

    @contextmanager
    def make(size):
        def measure():
            order.append(size)
            return curves.Seconds(size * next(numbers), 1.0)

        yield measure

    curve = curves.Curve("nothing", "sizes", (1, 2, 4), (1, 2), make, warm=False)
    found = curves.measured(curve, seconds=0.0)
    assert order == [1, 2, 4, 4, 2, 1, 1, 2, 4]
    # Numbers 1, 6, 7 fell to the first size, 2, 5, 8 to the second, 3, 4, 9 to the third.
    assert found.wall == [6, 2 * 5, 4 * 4]
    assert curves.shown(curve, found)[-1].startswith("exponent 0.00 ± 0.00")


@pytest.mark.parametrize("nodes", [2, 3, 7, 20, 63])
def test_trees_have_as_many_nodes_as_asked_for(nodes):
    assert [size(each) for each in scaling_search.trees(nodes)] == [nodes] * scaling_search.LOSSES


def network(name):
    if name == "lenet5":
        return lenet5((1, 28, 28), 10), torch.randn(3, 1, 28, 28)
    layers = (torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5))
    return torch.nn.Sequential(*layers), torch.randn(7, 10)


@pytest.mark.parametrize("name", ["lenet5", "perceptron"])
def test_operations_are_those_that_torch_counts(name):
    module, x = network(name)
    with FlopCounterMode(display=False) as counter:
        module(x).sum().backward()
    assert limits.operations(limits.products(*network(name))) == counter.get_total_flops()


def test_who_finishes_a_race_is_who_is_in_the_better_half_twice():
    errors = np.array([[1, 2, 3, 4, 5, 6, 7, 8.0], [4, 3, 2, 1, 0, 0, 0, 0.0], [9] * 8])
    assert race.finishing(race.replayed(errors, True)) == [2, 3]


def test_the_falsely_eliminated_would_have_been_among_the_best():
    errors = np.array([[1, 2, 3, 4.0], [1, 2, 3, 4.0], [5, 6, 5, 0.0]])
    made = race.Race(errors, race.replayed(errors, (1.0, 1.0)))
    assert made.out == [1, 2, 3]
    assert made.wronged == [3]
    assert made.spent == pytest.approx((1 + 3 * 0.2) / 4)
    tied = race.Race(errors[:, :3], race.replayed(errors[:, :3], (1.0, 1.0)))
    assert tied.wronged == [], "a tie is no wrong"


def test_a_race_that_rungs_predict_loses_nothing_and_one_that_they_mislead_all():
    final = np.arange(1.0, 9.0)
    assert race.drawn(np.stack([final] * 3), 8) == (0.0, 0.0)
    lost, cost = race.drawn(np.stack([-final, -final, final]), 8)
    assert (lost, cost) == (1.0, pytest.approx(6.0)), "7 is left where 1 was there"
    lost, cost = race.drawn(np.stack([final] * 3), 4, asynchronous=True)
    assert 0 < lost < 0.5, "a race of which all are worse than others were"
    assert race.correlation(final, np.array([*final[:-1], np.inf])) == pytest.approx(1.0)


def test_curves_in_short(tmp_path, capsys):
    names = ["driver", "form", "fingerprint", "commit", "open", "resume", "show"]
    arguments = SimpleNamespace(curves=names, quick=True, json=tmp_path / "found.json")
    scaling.run(arguments, tmp_path)
    found = json.loads(arguments.json.read_text())
    assert list(found) == names
    for name, each in found.items():
        assert len(each["at"]) == len(each["seconds"]) == 2, name
        assert all(wall > 0 for rounds in each["seconds"] for wall, _ in rounds), name
    assert capsys.readouterr().out.count("exponent") == 2 * len(names)


def test_an_unknown_curve_is_told(tmp_path):
    with pytest.raises(SystemExit, match="no curve 'nodse': there are population, "):
        scaling.chosen(["nodse"], tmp_path, quick=False)
