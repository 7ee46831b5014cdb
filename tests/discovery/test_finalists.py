"""The finalists' scores and scales."""

import math
from dataclasses import replace
from statistics import fmean

import pytest

from evoloss.discovery.candidate import Candidate
from evoloss.discovery.finalists import (
    LARGEST_SCALE,
    Final,
    beats,
    final_scores,
    simplest_of_the_best,
)
from evoloss.discovery.settings import Settings
from evoloss.discovery.workbench import Workbench
from evoloss.lang.expr import scaled
from evoloss.lang.parse import parse
from tiny import classification, few_shot, regression


def candidates(*texts):
    return [
        Candidate(index, 0, index, "given", (), parse(text), text)
        for index, text in enumerate(texts)
    ]


def bench(task=regression, **changes):
    return Workbench(task(), Settings(fitness_steps=30, **changes))


def without_scale(task, loss):
    """The mean error of one loss as it is."""
    (final,), _ = final_scores(bench(task, rescale=False), candidates_of(loss))
    return final.error


def candidates_of(loss):
    return [Candidate(0, 0, 0, "given", (), loss, "")]


@pytest.mark.parametrize("task", [regression, classification, few_shot])
def test_a_loss_that_is_too_small_is_doubled_while_that_helps(task):
    small = parse("square(y - f)*0.02")
    (final,), _ = final_scores(bench(task), candidates_of(small))
    assert final.scale > 1.0
    assert math.log2(final.scale).is_integer()
    assert final.error == pytest.approx(without_scale(task, scaled(small, final.scale)))
    for other in (1.0, final.scale / 2):
        assert final.error < without_scale(task, scaled(small, other))
    if final.scale < LARGEST_SCALE:
        assert final.error <= without_scale(task, scaled(small, final.scale * 2))


def test_a_loss_that_is_too_large_is_halved():
    (final,), _ = final_scores(bench(), candidates("square(y - f)*30"))
    assert final.scale < 1.0


def final(number, *errors, text="square(y - f)"):
    (made,) = candidates(text)
    return Final(replace(made, id=number), fmean(errors), errors=errors)


def test_a_loss_that_diverges_on_one_trial_is_surely_beaten():
    good = final(0, 1.0, 1.2, 0.9, 1.1, 1.0, text="square(abs(y - f))")
    once = final(1, 1.0, 1.2, 0.9, 1.1, 1e18)
    assert beats(good, once)
    assert not beats(once, good)
    assert simplest_of_the_best([once, good]) is good


def test_of_losses_that_differ_by_noise_the_simplest_wins():
    best = final(0, 1.0, 1.2, 0.9, 1.1, 0.95, text="square(abs(y - f))")
    level = final(1, 1.01, 1.19, 0.92, 1.08, 0.97)
    worse = final(2, 1.05, 1.25, 0.95, 1.15, 1.0)
    assert not beats(best, level)
    assert beats(best, worse)  # by little, but on every trial
    assert simplest_of_the_best([best, level, worse]) is level


def test_one_trial_is_taken_at_its_word():
    assert beats(final(0, 1.0), final(1, 1.1))
    assert not beats(final(0, 1.1), final(1, 1.1))


def test_one_that_diverges_at_every_scale_is_left_out_and_steps_are_counted():
    good, bad = "square(y - f)", "log(y - f)*1e300 + f*1e300"
    finals, _ = final_scores(bench(rescale=False), candidates(good, bad))
    assert [each.candidate.id for each in finals] == [0]
    _, steps = final_scores(bench(rescale=False), candidates(good))
    assert steps == Settings.final_seeds * 30
    (final,), more = final_scores(bench(), candidates(good))
    tried = 3 + abs(math.log2(final.scale))  # one step too far unless 1 is best
    assert more in (tried * steps, (tried - 1) * steps)
