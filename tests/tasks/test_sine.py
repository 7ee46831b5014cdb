"""The sinusoids: one amplitude and phase each, keyed by index, none in both halves."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from evoloss.tasks.registry import load_task
from evoloss.tasks.sine import Sinusoids


def sinusoid(episode):
    """Amplitude and phase by linear least squares on sin and cos; checks that nothing is left."""
    x, y = (
        np.concatenate([getattr(episode.train, side), getattr(episode.held_out, side)])[:, 0]
        for side in "xy"
    )
    (a, b), _ = curve_fit(lambda x, a, b: a * np.sin(x) - b * np.cos(x), x, y)
    np.testing.assert_allclose(a * np.sin(x) - b * np.cos(x), y, atol=1e-5)
    return np.hypot(a, b), np.arctan2(b, a)


def test_episodes_are_sinusoids_of_the_published_distribution():
    episodes = Sinusoids(seed=0)
    found = np.array([sinusoid(episodes.search(index)) for index in range(200)])
    assert found[:, 0].min() > 0.2
    assert found[:, 0].max() < 5.0
    assert found[:, 0].mean() == pytest.approx(2.6, abs=0.3)
    assert np.abs(found[:, 1]).mean() == pytest.approx(np.pi / 2, abs=0.2)
    x = episodes.search(0).held_out.x
    assert x.shape == (100, 1)
    assert x.abs().max() <= 5


def test_meta_testing_sinusoids_are_others():
    episodes = Sinusoids(seed=0, distinct=50)
    search = {episodes.search(index).train.y[0].item() for index in range(50)}
    test = {episodes.test(index).train.y[0].item() for index in range(50)}
    assert len(search | test) == 100


def test_an_index_names_one_sinusoid_in_any_order_and_starts_over():
    first, again = Sinusoids(seed=7, distinct=5), Sinusoids(seed=7, distinct=5)
    last = first.search(4).held_out.y
    first.search(0)
    assert last.equal(again.search(4).held_out.y)
    assert last.equal(again.search(9).held_out.y)
    assert not last.equal(Sinusoids(seed=8, distinct=5).search(4).held_out.y)


def test_the_task_averages_over_several_sinusoids():
    task = load_task("sine")
    assert task.episodes_per_fitness == 10
    assert task.metric.name == "mse"
    assert task.network_name == "mlp:40,40"
    assert len(task.episodes.search(0).train) == 20
