"""The settings of the learning rate reach trainings."""

from types import SimpleNamespace

import pytest

from evoloss.discovery.randomness import Purpose
from evoloss.errors import UserError
from evoloss.unlearn import trainings
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.settings import unlearn_settings

COSINE = {"schedule": "cosine", "warmup": 0.25}


def test_trainings_run_as_the_settings_say(monkeypatch):
    monkeypatch.setattr(trainings, "_objective", lambda *given: None)
    bench = SimpleNamespace(
        settings=unlearn_settings(**COSINE), phase=lambda name: None,
        in_parts=lambda chosen, work: work(chosen),
    )  # fmt: skip
    entries = [SimpleNamespace(steps=steps, lr=1e-3) for steps in (8, 4)]
    group = trainings.Group.of(bench, "search", entries, Purpose.FITNESS_BATCHES, 0, 8)
    assert group.schedules == [Schedule(n, 1e-3, kind="cosine", warmup=0.25) for n in (8, 4)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
        ({"warmup": 1.0}, "warmup is 1.0: give a share of the steps"),
        ({"warmup": -0.1}, "warmup is -0.1: give a share of the steps"),
    ],
)
def test_what_is_no_schedule_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        unlearn_settings(**changes)
