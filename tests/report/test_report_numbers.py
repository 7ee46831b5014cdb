"""The numbers in the report's pictures, against counting and arithmetic of other kinds."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

import tiny
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.result import FoundLoss
from evoloss.discovery.settings import Settings
from evoloss.discovery.workbench import Workbench
from evoloss.engine.stack import Layout, parameters
from evoloss.lang import zoo
from evoloss.lang.expr import Call, walk
from evoloss.lang.parse import parse
from evoloss.propose.ml3 import fresh_network
from evoloss.report import confidence, fates, lineage, progress, stretches
from evoloss.report.landscape import normalised, value_of
from evoloss.report.limits import limits
from evoloss.report.measurements import Arm, Measurements
from evoloss.report.operators import occurrences, shares
from evoloss.report.runs import Run, grouped, subject
from evoloss.store.entry import Entry
from strategies import expressions

SETTINGS = Settings(fitness_steps=12)
FOUND, USUAL = parse("abs(y - f)"), parse("square(y - f)")
ARMS = (Arm(FOUND), Arm(USUAL))


def entry(id, generation=0, operator="initial", parents=(), error=None, **changes):
    fate = Fate.SCORED if error is not None else Fate.REJECTED
    changes = {"fate": fate, "error": error, "expression": USUAL, **changes}
    return Entry.of(Candidate(id, generation, id, operator, parents, canonical=str(id), **changes))


def run_of(*candidates, **settings):
    """As much of a run as the pictures' numbers are made from."""
    about = {"higher_is_better": False, "metric": "mse"}
    generations = 1 + max(each.generation for each in candidates)
    settings = {"method": "evomal", "seed": 0, "population": 2, **settings}
    return Run(None, None, settings, about, candidates, generations, None, (), None, True, [])


# Confidence


def test_calibration_error_counts_bin_by_bin():
    generator = np.random.default_rng(0)
    sure, right = generator.uniform(0, 1, 400), generator.integers(0, 2, 400).astype(float)
    sure[0] = 1.0
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        rows = [i for i in range(400) if low <= sure[i] < high or (number == 14 and sure[i] == 1)]
        gap = sum(right[i] for i in rows) / len(rows) - sum(sure[i] for i in rows) / len(rows)
        expected += len(rows) / 400 * abs(gap)
    assert confidence.calibration_error(sure, right) == pytest.approx(expected)


def test_certain_and_right_is_calibrated():
    assert confidence.calibration_error(np.ones(9), np.ones(9)) == 0.0
    assert confidence.calibration_error(np.ones(9), np.zeros(9)) == 1.0


@pytest.mark.parametrize("xi", [0.05, 0.1, 0.3])
def test_label_smoothing_is_recognised(xi):
    loss = zoo.loss("label-smoothing", classes=10, xi=xi)
    aim = confidence.aim(confidence.sought(loss, "softmax", 10))
    assert confidence.smoothing(aim, 10) == pytest.approx(xi, abs=0.01)


def test_cross_entropy_asks_for_full_confidence():
    for name, output in (("cross-entropy", "softmax"), ("binary-cross-entropy", "sigmoid")):
        aim = confidence.aim(confidence.sought(zoo.loss(name), output, 2))
        assert aim > 0.9995


# Landscape


def test_filters_get_the_norms_of_the_network_and_biases_stay():
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4))
    theta, layout = parameters(module), Layout(module)
    generator = torch.Generator().manual_seed(0)
    plane = normalised(torch.randn(2, layout.total, generator=generator), theta, layout)
    own, found = layout.split(theta), layout.split(plane)
    for direction in range(2):
        for name, weight in own.items():
            for number, part in enumerate(weight):
                moved = found[name][direction][number]
                expected = part.norm() if weight.dim() > 1 else torch.tensor(0.0)
                torch.testing.assert_close(moved.norm(), expected)


def test_heights_are_sums_over_outputs_and_means_over_rows():
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(3, 5, 2, generator=generator)
    y = torch.rand(5, 2, generator=generator)
    expected = [sum(((y[n] - each[n]) ** 2).sum() for n in range(5)) / 5 for each in f]
    torch.testing.assert_close(value_of(USUAL, f, y), torch.stack(expected))


# Trainings


def measurements(task=None, arms=ARMS):
    # Without a limit of time, which on a busy machine would cut the plan.
    return Measurements(Workbench(task or tiny.regression(), SETTINGS), arms, seconds=1e6)


def test_a_curve_is_the_training_that_torch_does():
    measured = measurements()
    task, trial = measured.bench.task, measured.trial(1)
    network = task.network()
    nn.utils.vector_to_parameters(trial.initial[0].clone(), network.parameters())
    training = task.training
    optimiser = torch.optim.SGD(
        network.parameters(), training.lr, training.momentum, nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )  # fmt: skip
    for rows in trial.batches:
        optimiser.zero_grad()
        (trial.train.y[rows] - network(trial.train.x[rows])).abs().sum(1).mean().backward()
        optimiser.step()
    error = (network(trial.held_out.x) - trial.held_out.y).square().mean()
    assert measured.curves.steps[-1] == len(trial.batches) == 12
    assert measured.curves.errors[0, 1, -1] == pytest.approx(error.item(), rel=1e-4)


def test_the_sweep_multiplies_the_learning_rate():
    measured = measurements()
    factors = measured.plan.factors
    assert measured.sweep[factors.index(1.0)] == pytest.approx(measured.curves.errors[:, :, -1])
    task = tiny.regression()
    task = replace(task, training=replace(task.training, lr=4 * task.training.lr))
    quicker = measurements(task).curves.errors[:, :, -1]
    assert measured.sweep[factors.index(4.0)] == pytest.approx(quicker, rel=1e-5)


def test_a_loss_may_bring_its_own_momentum():
    mixed = measurements(arms=(Arm(FOUND, momentum=0.0), Arm(USUAL))).curves.errors
    plain = measurements(arms=(Arm(FOUND, momentum=0.0),)).curves.errors
    assert mixed[0] == pytest.approx(plain[0])
    assert mixed[1] == pytest.approx(measurements().curves.errors[1])
    assert mixed[0] != pytest.approx(measurements().curves.errors[0])


def test_episodes_of_a_seed_are_averaged():
    measured = measurements(tiny.few_shot())
    assert measured.episodes == 2
    ends = measured.curves.steps
    each = [measured._followed(measured.trial(0, number), ends)[0] for number in (0, 1)]
    assert measured.curves.errors[:, 0] == pytest.approx((each[0] + each[1]) / 2)


def test_a_slow_network_gets_fewer_seeds_first_and_then_fewer_steps(monkeypatch):
    bench = Workbench(tiny.regression(), Settings(fitness_steps=1000))

    def plan(a_step):
        monkeypatch.setattr(Measurements, "_seconds", lambda self, trial: (a_step, 0.0))
        return Measurements(bench, ARMS).plan

    quick, slower, slow, slowest = (plan(a_step) for a_step in (1e-5, 4e-4, 1e-2, 1.0))
    assert (quick.seeds, quick.steps) == (5, 1000)
    assert (slower.steps, slower.sweep_seeds) == (1000, 2)
    assert (slow.seeds, slow.full) == (2, 1000)
    assert slow.steps * (slow.seeds + 4) * 1e-2 == pytest.approx(10, rel=0.05)
    assert slowest.steps == 20


# Histories


def test_a_generation_counts_those_with_a_full_score():
    history = (
        entry(0, error=4.0), entry(1, error=2.0),
        entry(2, 1, error=2.0, fate=Fate.DUPLICATE, same_as=1),
        entry(3, 1, error=1.0, fate=Fate.RACED_OUT),
        entry(4, 2), entry(5, 2, error=1.5),
    )  # fmt: skip
    found = progress.statistics(run_of(*history))
    assert found[:, 0].tolist() == [2.0, 2.0, 1.5]
    assert found[0, 1:].tolist() == [2.0, 2.5, 3.0, 3.5]
    assert found[1, 1:].tolist() == [2.0] * 4


def test_rejection_is_told_apart_by_tuning():
    assert fates.label(entry(0)) == "rejected early"
    assert fates.label(entry(0, phi=(1.0, 1.0, 1.0))) == "rejected after tuning"
    assert fates.label(entry(0, error=1.0)) == "evaluated"
    assert {fates.label(entry(0, fate=fate)) for fate in Fate} <= set(fates._COLOURS)


def test_the_lineage_passes_over_copies():
    history = (
        entry(0, error=4.0, operator="usual loss"), entry(1, error=5.0),
        entry(2, 1, "elite", (0,), 4.0), entry(3, 1, "crossover", (1, 0), 3.0),
        entry(4, 2, "crossover", (3, 2), 2.0), entry(5, 2, "mutation", (1,), 9.0),
    )  # fmt: skip
    steps = lineage.ancestors(run_of(*history), history[4])
    assert list(steps) == [0, 1, 3, 4]
    assert steps[4].parents == (3, 0)
    assert [each.candidate.id for each in lineage.main_line(steps, 4)] == [4, 3, 1]


def test_shares_of_operators():
    history = [
        entry(0, expression=parse("square(y - f)")),
        entry(1, expression=parse("log(f) + y*f - 1")),
    ]
    counts = Counter(["square", "sub", "log", "add", "mul", "sub"])
    assert shares(occurrences(history)) == {name: count / 6 for name, count in counts.items()}


@given(expressions())
def test_operators_are_found_in_texts(expression):
    nodes = Counter(node.op for node in walk(expression) if isinstance(node, Call))
    assert occurrences([entry(0, expression=expression)] * 2) == nodes + nodes


def test_the_weights_of_a_network_hold_no_operators():
    network = fresh_network(np.random.default_rng(0))
    assert "/" in network.encoded
    assert not occurrences([entry(0, expression=network)])


def test_generations_of_a_long_run_are_taken_together():
    entries = [entry(n, n // 2, error=float(n % 7)) for n in range(2 * 730)]
    entries += [entry(n, 729) for n in range(1460, 1463)]
    run = run_of(*entries)
    assert stretches.length(100) == stretches.length(1) == 1
    found = stretches.ends(730)
    assert len(found) == 92 <= stretches.MOST
    assert [n for begin, end in found for n in range(begin, end)] == list(range(730))
    assert [stretches.name(*each) for each in (found[0], found[-1])] == ["1–8", "729–730"]
    whole, parts = progress.statistics(run), progress.statistics(run, 8)
    assert parts[:, 0].tolist() == [whole[end - 1, 0] for _, end in found]
    own = [[each.error for each in entries if each.error is not None
            and begin <= each.generation < end] for begin, end in found]  # fmt: skip
    assert parts[:, 3].tolist() == [float(np.median(each)) for each in own]


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250, 10_000])
def test_thinning_keeps_so_many_from_all_parts(count):
    found = stretches.thinned(range(count), 100)
    assert min(count, 51) <= len(found) <= 100
    assert found[0] == 0
    assert count - found[-1] <= -(-count // 100)


def test_runs_that_differ_in_their_seed_are_one_method():
    runs = [
        run_of(entry(0), seed=0, unroll=1), run_of(entry(0), seed=1, unroll=1),
        run_of(entry(0), seed=0, unroll=2), run_of(entry(0), method="random"),
    ]  # fmt: skip
    found = [(group.label, len(group.runs)) for group in grouped(runs)]
    assert found == [("evomal, unroll 1", 2), ("evomal, unroll 2", 1), ("random", 1)]


def test_a_fixed_loss_is_not_looked_at_closely():
    def with_best(error, generations):
        best = FoundLoss(entry(0), error, "identity")
        return replace(run_of(entry(0)), best=best, generations=generations)

    fixed, worse, better = with_best(0.1, 1), with_best(0.3, 5), with_best(0.2, 5)
    assert subject([fixed, worse, better]) is better
    assert subject([fixed]) is fixed
    assert subject([run_of(entry(0))]) is None


def test_an_axis_leaves_outliers_out_and_keeps_what_it_must():
    values = [*np.linspace(0, 1, 50), 1e9, np.nan, np.inf]
    low, high = limits(values)
    assert -0.5 < low < 0 < 1 < high < 5
    assert limits(values, keep=[-7.0])[0] < -7.0
    assert limits([]) == (0.0, 1.0)
    low, high = limits([3.0, 3.0])
    assert low < 3.0 < high
