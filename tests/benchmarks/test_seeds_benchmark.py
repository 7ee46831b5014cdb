"""The benchmark of several seeds, in small: every way does its searches and is counted."""

from toy_search import benchmark

seeds = benchmark("seeds")


class Here:
    """A pool that works in this process."""

    map = staticmethod(map)


def test_the_ways_are_counted_in_gradient_steps(monkeypatch):
    tiny = {"population": 4, "generations": 1, "local_steps": 2, "fitness_steps": 4}
    monkeypatch.setitem(seeds.CASES, "tiny", ("diabetes", tiny))
    seeds.warm("tiny")
    steps = {way: run() for way, run in seeds.ways("tiny", 2, Here()).items()}
    assert steps["in turn"] == steps["side by side"] > 0
    assert steps["one batch"] > 0
