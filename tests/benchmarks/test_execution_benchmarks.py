"""The benchmarks of executors, in small: that they run, and that their shares are shares."""

import re
import sys

import pytest

from evoloss.execution.executor import Recipe
from mirror import Mirror
from toy_search import benchmark

driver, idle = benchmark("driver"), benchmark("idle")
TINY = {"population": 5, "local_steps": 2, "fitness_steps": 4}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_idle_shares_are_of_the_time_there_is(asynchronous, monkeypatch, capsys):
    monkeypatch.setitem(idle.CASES, "tiny", ("diabetes", {**TINY, "rejection": False}))
    idle.report("tiny", 1, 2, asynchronous)
    told = capsys.readouterr().out
    assert ("asynchronously" in told) == asynchronous
    assert {"tune", "train"} <= {line.replace(",", "").split(" ")[0] for line in told.splitlines()}
    shares = [float(each) for each in re.findall(r"(-?[\d.]+)%", told)]
    assert all(0 <= share <= 100 for share in shares)


def test_a_race_sends_states_back_and_there_again():
    # All send theirs at the first rung, half get them back; half of these at the second.
    weights, state = 10, 2 * 4 * 10
    assert driver.sent(weights) == state * (1 + 0.5 + 0.5 + 0.25)


def test_the_driver_costs_something_everywhere(tmp_path):
    found = driver.costs(8, tmp_path)
    assert set(found) == {"proposal, canonical form", "fingerprint", "text for workers", "store"}
    assert all(0 < each < 1 for each in found.values())


def test_handing_over_costs_something(monkeypatch):
    monkeypatch.setitem(sys.modules, "driver", driver)
    handed = []
    crew = Mirror(Recipe("driver:Idle", {}), 1, 1)
    real = crew.ask
    monkeypatch.setattr(crew, "ask", lambda job, *rest: handed.append(job) or real(job, *rest))
    found = driver.handed_over(crew, 6)
    assert len(handed) == 6 * (1 + driver.ROUNDS)
    assert 0 < found.processor < 6
    assert 0 < found.wall < 6


@pytest.mark.parametrize("processors", [1, 1000])
def test_what_is_lost_grows_with_the_processors(processors, capsys):
    driver.model(0.001, 1e-9, processors, 10)
    told = capsys.readouterr().out
    assert f"lose 10% where a candidate takes {0.009 * processors:.1f} s" in told
