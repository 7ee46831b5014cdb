"""bfloat16 ranks known losses as single precision does, and is refused where it does not."""

import numpy as np
import pytest
from scipy.stats import spearmanr

import tiny
from evoloss.discovery import precision
from evoloss.discovery.search import search
from evoloss.discovery.settings import Settings, preset
from evoloss.discovery.workbench import Workbench
from evoloss.engine.precision import HalfPrecision
from evoloss.errors import UserError
from evoloss.propose.fixed import zoo_losses
from evoloss.tasks.registry import load_task


def bench_of(task, **settings):
    return Workbench(task, preset("fast", fitness_seeds=1, **settings))


def test_it_is_off_unless_it_is_asked_for():
    assert Settings().precision == "float32"
    assert not isinstance(bench_of(tiny.regression()).stack, HalfPrecision)
    assert isinstance(bench_of(tiny.regression(), precision="bf16").stack, HalfPrecision)


@pytest.mark.slow
def test_the_known_losses_of_classification_rank_alike_on_digits():
    bench = bench_of(load_task("digits", network="mlp:32"), precision="bf16", fitness_steps=150)
    whole, half = (precision._errors(bench, each) for each in ("float32", "bf16"))
    assert len(whole) == 2 * len(zoo_losses("softmax", 10)) > 10
    assert whole != half, "one of them is not in force"
    assert np.ptp(whole) > 0.2, "there is something to rank"
    assert spearmanr(whole, half).statistic > 0.95
    assert precision.agreement(bench) == pytest.approx(spearmanr(whole, half).statistic)
    precision.check_precision(bench)


def ranked(monkeypatch, half):
    """Known losses end in this order in bfloat16, and in another in single precision."""
    errors = {"float32": [1.0, 2.0, 3.0, 4.0, np.inf], "bf16": half}
    monkeypatch.setattr(precision, "_errors", lambda bench, name: errors[name])


@pytest.mark.parametrize(
    ("half", "rho"),
    [([np.inf, 4.0, 3.0, 2.0, 1.0], "-1.00"), ([2.0, 1.0, 4.0, 3.0, np.inf], "0.80"),
     ([1.0] * 5, "nan")],
)  # fmt: skip
def test_a_search_that_would_rank_otherwise_is_refused_with_the_figure(
    half, rho, monkeypatch, tmp_path
):
    ranked(monkeypatch, half)
    with pytest.raises(UserError, match=rf"rho {rho}, at least 0.9 is wanted"):
        search(tiny.regression(), out=tmp_path / "run", precision="bf16", **tiny.SEARCH)
    assert not (tmp_path / "run").exists()


def test_other_searches_are_not_asked(monkeypatch):
    ranked(monkeypatch, [np.inf, 4.0, 3.0, 2.0, 1.0])
    precision.check_precision(bench_of(tiny.regression()))


def test_the_same_order_with_other_errors_will_do(monkeypatch):
    ranked(monkeypatch, [1.1, 2.3, 2.9, 4.2, np.inf])
    precision.check_precision(bench_of(tiny.regression(), precision="bf16"))
