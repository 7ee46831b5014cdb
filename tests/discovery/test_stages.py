"""The stages of a generation, each against a plain one-candidate-at-a-time version."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from evoloss.discovery import archive as archive_module
from evoloss.discovery import supervised as supervised_module
from evoloss.discovery.archive import Archive, pareto
from evoloss.discovery.candidate import Candidate, Fate
from evoloss.discovery.fitness import fitness
from evoloss.discovery.race import marks
from evoloss.discovery.rejection import faults
from evoloss.discovery.settings import preset
from evoloss.discovery.stages import Generation
from evoloss.discovery.supervised import Supervised
from evoloss.discovery.tuning import tune
from evoloss.discovery.workbench import Workbench
from evoloss.lang.expr import complexity
from evoloss.lang.parse import parse, parse_expression
from evoloss.lang.weights import edge_count
from evoloss.propose.gp import Proposal
from loss_oracle import batch_loss
from tiny import SEARCH, Steep, classification, few_shot, regression

GOOD = [
    parse_expression(text)
    for text in (
        "square(y - f)",
        "abs(y - f)",
        "log(1.0 + square(y - f))",
        "sqrt(1.0 + abs(y - f))",
        "aq(square(y - f), y)",
        "tanh(square(y - f))",
        "square(y - f) + abs(f - y) * 0.5",
        "max(square(y - f), abs(y - f))",
    )
]


def bench_of(task=None, name="fast", **changes):
    return Workbench(task or regression(), preset(name, **{**SEARCH, **changes}))


def archive_for(bench):
    return Archive(bench.settings, Supervised(bench).fingerprint)


def generation(bench, texts, archive=None, number=0):
    """The finished candidates of a generation that proposes these expressions."""
    archive = archive or archive_for(bench)
    proposals = [
        Proposal(parse_expression(each) if isinstance(each, str) else each, "initial", ())
        for each in texts
    ]
    bench.settings = replace(bench.settings, population=len(proposals))
    return Generation(
        Supervised(bench), archive, number, proposals, lambda stage, share: None
    ).run()


def expect_fates(candidates, *fates):
    assert [each.fate for each in candidates] == list(fates), [each.reason for each in candidates]


# Duplicates and equivalents


def test_duplicates_of_a_generation_take_the_result_over():
    first, same, other, again = generation(
        bench_of(), ["square(y - f)", "square(f - y)", "abs(y - f)", "square(y - f)"]
    )
    expect_fates([first, same, other, again], Fate.SCORED, Fate.DUPLICATE, Fate.SCORED,
                 Fate.DUPLICATE)  # fmt: skip
    for each in (same, again):
        assert (each.same_as, each.error, each.steps, each.phi) == (0, first.error, 0, None)
        assert each.reason == "same form as #0"
    assert first.steps == SEARCH["local_steps"] + SEARCH["fitness_steps"]


def test_duplicates_of_earlier_generations_point_to_the_first():
    bench = bench_of()
    archive = archive_for(bench)
    archive.extend(generation(bench, ["square(y - f)", "-square(y - f)"], archive))
    archive.extend(generation(bench, ["square(f - y)", "-square(f - y)"], archive, 1))
    good, bad = generation(bench, ["square(y - f)", "-square(y - f)"], archive, 2)
    expect_fates((good, bad), Fate.DUPLICATE, Fate.DUPLICATE)
    assert (good.same_as, good.error) == (0, archive.history[0].error)
    assert (bad.same_as, bad.error) == (1, None)
    assert archive.original(archive.history[2]) is archive.history[0]


SHIFTED = "square(y - f) + y"


def test_equal_gradients_of_an_earlier_generation_take_the_result_over():
    bench = bench_of(local_search="none")
    archive = archive_for(bench)
    archive.extend(generation(bench, ["square(y - f)", "abs(y - f)"], archive))
    same, other = generation(bench, [SHIFTED, "-abs(y - f)"], archive, 1)
    expect_fates([same, other], Fate.EQUIVALENT, Fate.REJECTED)
    assert (same.same_as, same.error, same.steps) == (0, archive.history[0].error, 0)


def test_tuned_losses_are_compared_by_their_tuned_gradients(monkeypatch):
    """Two structures of different gradients that tuning brings to one loss: the second is not
    trained."""
    weights = {"abs(y - f)": (1.0, 1.0, 1.0), "abs((y - f) * 4.0)": (0.25, 1.0, 1.0, 1.0, 1.0)}
    found = {parse_expression(text): phi for text, phi in weights.items()}
    monkeypatch.setattr(
        "evoloss.discovery.trainings.tune",
        lambda bench, losses, tick: [found.get(e, (1.0,) * edge_count(e)) for e in losses],
    )
    bench = bench_of()
    archive = archive_for(bench)
    archive.extend(generation(bench, ["abs(y - f)", "square(y - f)"], archive))
    same, other = generation(bench, ["abs((y - f) * 4.0)", "sqrt(1.0 + abs(y - f))"], archive, 1)
    expect_fates([same, other], Fate.EQUIVALENT, Fate.SCORED)
    assert (same.same_as, same.error) == (0, archive.history[0].error)
    assert same.steps == SEARCH["local_steps"]


def test_the_paper_preset_does_not_look_for_equivalence(monkeypatch):
    def forbidden(*args):
        raise AssertionError("the paper preset compares neither gradients nor canonical forms")

    monkeypatch.setattr(supervised_module, "gradient_fingerprint", forbidden)
    monkeypatch.setattr(archive_module, "canonical_text", forbidden)
    bench = bench_of(name="paper", finalists=0)
    archive = archive_for(bench)
    archive.extend(generation(bench, ["square(y - f)", "square(f - y)", "square(y - f)"], archive))
    expect_fates(archive.history, Fate.SCORED, Fate.SCORED, Fate.DUPLICATE)
    later = generation(bench, [SHIFTED, "abs(y - f)", "abs(f - y)"], archive, 1)
    expect_fates(later, Fate.SCORED, Fate.SCORED, Fate.SCORED)


# Rejection


@pytest.mark.parametrize("name", ["fast", "paper"])
@pytest.mark.parametrize(
    "text",
    [
        "y + f * 0.0",  # constant in the prediction
        "sign(y - f)",  # no gradient
        "-square(y - f)",  # the wrong way
        "y * 0.0 - f",  # away
        "f / (y - y)",  # infinite
    ],
)
def test_losses_that_do_not_lower_the_error_are_rejected(name, text):
    found, good = generation(bench_of(name=name), [text, "square(y - f)"])
    expect_fates([found, good], found.fate, Fate.SCORED)
    # The paper's order tunes first, and tuning breaks down on infinite gradients.
    broken = name == "paper" and text == "f / (y - y)"
    assert found.fate is (Fate.FAILED if broken else Fate.REJECTED)
    assert (found.error, found.same_as) == (None, None)
    assert found.reason
    if name == "fast":
        assert found.steps == 0  # before any tuning
        assert "minimising it" in found.reason
        assert "MSE" in found.reason


def raw_start(bench):
    """The free predictions that rejection starts from, as the workbench draws them."""
    raw, target = bench.rejection_start
    return raw.clone(), target


@pytest.mark.parametrize("task", [regression, classification, few_shot])
def test_rejection_is_adam_on_free_predictions(task):
    bench = bench_of(task())
    task, steps = bench.task, bench.settings.rejection_steps
    losses = [*GOOD, parse_expression("-square(y - f)"), parse_expression("f * f * y")]
    raw, target = raw_start(bench)
    transforms = {"identity": lambda r: r, "softmax": lambda r: torch.softmax(r, -1)}
    expected = []
    for expr in losses:
        free = raw.clone().requires_grad_()
        adam = torch.optim.Adam([free], lr=task.training.lr)
        for _ in range(steps):
            adam.zero_grad()
            batch_loss(expr, target, transforms[task.output](free), weights="none").backward()
            adam.step()
        before, after = (
            task.metric.errors(transforms[task.output](each.detach())[None], target).item()
            for each in (raw, free)
        )
        expected.append(after < before)
    assert [fault is None for fault in faults(bench, losses)] == expected
    assert {True, False} == set(expected)


# Tuning


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("task", [regression, classification, few_shot])
def test_tuning_is_adam_on_hypergradients(task, unroll):
    """Against one loss at a time: torch.optim.Adam and double backward through the SGD steps."""
    bench = bench_of(task(), unroll=unroll, local_steps=4)
    losses = GOOD[:3]
    found = tune(bench, losses, lambda share: None)
    for expr, phi in zip(losses, found, strict=True):
        expected = tuned_alone(bench, expr)
        assert len(phi) == edge_count(expr)
        torch.testing.assert_close(
            torch.tensor(phi).double() - 1.0, expected - 1.0, rtol=1e-2, atol=2e-5
        )
        assert max(abs(weight - 1.0) for weight in phi) > 1e-3


def tuned_alone(bench, expr):
    task, sgd = bench.task, bench.task.training
    module = task.network()
    transform = {"identity": lambda r: r, "softmax": lambda r: torch.softmax(r, -1)}[task.output]
    phi = torch.ones(edge_count(expr), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([phi], lr=bench.settings.meta_lr)
    for number, step in enumerate(bench.tuning):
        nn.utils.vector_to_parameters(bench.tuning_weights[number][0].clone(), module.parameters())
        theta = {n: p.detach().double().requires_grad_() for n, p in module.named_parameters()}
        velocity = dict.fromkeys(theta, 0.0)
        for rows in step.inner_rows:
            x, y = (each[rows].double() for each in (step.train.x, step.train.y))
            loss = batch_loss(expr, y, transform(functional_call(module, theta, (x,))), phi)
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            for (name, p), slope in zip(list(theta.items()), slopes, strict=True):
                slope = slope + sgd.weight_decay * p
                velocity[name] = sgd.momentum * velocity[name] + slope
                theta[name] = p - sgd.lr * (slope + sgd.momentum * velocity[name])
        seen = step.validation_rows
        x, y = (each[seen].double() for each in (step.validation.x, step.validation.y))
        f = transform(functional_call(module, theta, (x,)))
        adam.zero_grad()
        batch_loss(parse(task.usual_loss), y, f, weights="none").backward()
        adam.step()
    return phi.detach()


def test_tuning_tells_how_far_it_is():
    shares = []
    tune(bench_of(local_steps=4, unroll=2), GOOD[:2], shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    tune(bench_of(local_steps=60), GOOD[:2], shares.append)
    assert shares[4:] == [25 / 60, 50 / 60, 1.0]


# Fitness and the race


@pytest.mark.parametrize("task", [regression, classification, few_shot])
def test_fitness_is_the_validation_error_after_training(task):
    bench = bench_of(task())
    task, trials = bench.task, bench.fitness_trials
    assert len(trials) == task.episodes_per_fitness * bench.fitness_seeds
    scores = fitness(bench, GOOD, trials, racing=False)
    for expr, score in zip(GOOD, scores, strict=True):
        expected = [trained_alone(task, expr, trial) for trial in trials]
        assert score.errors == pytest.approx(expected, rel=1e-3)
        assert score.error == pytest.approx(sum(expected) / len(expected), rel=1e-3)
        assert (score.steps, score.finished) == (SEARCH["fitness_steps"], True)


def trained_alone(task, expr, trial):
    """The error on the trial's held-out data after torch.optim.SGD on one network."""
    module, training = task.network(), task.training
    nn.utils.vector_to_parameters(trial.initial[0].clone(), module.parameters())
    optimiser = torch.optim.SGD(
        module.parameters(), training.lr, training.momentum, 0, training.weight_decay,
        training.nesterov,
    )  # fmt: skip
    transform = {"identity": lambda r: r, "softmax": lambda r: torch.softmax(r, -1)}[task.output]
    for rows in trial.batches:
        optimiser.zero_grad()
        f = transform(module(trial.train.x[rows]))
        batch_loss(expr, trial.train.y[rows], f, weights="none").backward()
        optimiser.step()
    with torch.no_grad():
        f = transform(module(trial.held_out.x))
    value = float(task.metric.function(f, trial.held_out.y))
    return -value if task.metric.higher_is_better else value


def test_fitness_averages_over_seeds():
    bench = bench_of(fitness_seeds=3)
    trials = bench.fitness_trials
    assert len(trials) == 3
    assert not torch.equal(trials[0].initial, trials[1].initial)
    together = fitness(bench, GOOD[:2], trials, racing=False)
    for number, score in enumerate(together):
        alone = [fitness(bench, [GOOD[number]], [trial], racing=False)[0].error for trial in trials]
        assert score.errors == pytest.approx(alone)
        assert score.error == pytest.approx(sum(alone) / 3)


def errors_after(steps):
    bench = bench_of(fitness_steps=steps)
    return [score.error for score in fitness(bench, GOOD, bench.fitness_trials, racing=False)]


def test_a_race_keeps_the_better_half_and_trains_it_to_the_end():
    bench = bench_of(fitness_steps=20)
    found = fitness(bench, GOOD, bench.fitness_trials, racing=True)
    at = {steps: errors_after(steps) for steps in (4, 10, 20)}
    running, reached = list(range(8)), dict.fromkeys(range(8), 4)
    for rung, following in ((4, 10), (10, 20)):
        running = sorted(running, key=lambda row: at[rung][row])[: math.ceil(len(running) / 2)]
        reached.update(dict.fromkeys(running, following))
    assert len(running) == 2
    assert [score.steps for score in found] == [reached[row] for row in range(8)]
    assert [score.finished for score in found] == [row in running for row in range(8)]
    for row, score in enumerate(found):
        assert score.error == pytest.approx(at[score.steps][row], rel=1e-5)
    assert found[min(running)].error != at[10][min(running)]


def test_three_or_fewer_do_not_race():
    bench = bench_of()
    scores = fitness(bench, GOOD[:3], bench.fitness_trials, racing=True)
    assert all(score.finished for score in scores)


def test_who_left_the_race_is_recorded_with_where_and_why():
    bench = bench_of(fitness_steps=20, local_search="none")
    candidates = generation(bench, GOOD)
    out = [each for each in candidates if each.fate is Fate.RACED_OUT]
    assert {each.steps for each in out} <= {4, 10}
    assert all("is in the worse half" in each.reason and each.error is not None for each in out)
    assert sum(each.fate is Fate.SCORED for each in candidates) >= 2


@pytest.mark.parametrize("alone", [False, True])
def test_against_marks_each_is_judged_by_itself(alone):
    bench = bench_of(fitness_steps=20)
    at = {steps: errors_after(steps) for steps in (4, 10, 20)}
    limits = (sorted(at[4])[5], sorted(at[10])[2])  # six may pass, then three
    if alone:
        found = [fitness(bench, [each], bench.fitness_trials, limits)[0] for each in GOOD]
    else:
        found = fitness(bench, GOOD, bench.fitness_trials, limits)
    for row, score in enumerate(found):
        first, second = at[4][row] <= limits[0], at[10][row] <= limits[1]
        assert score.steps == (20 if first and second else 10 if first else 4)
        assert score.finished == (first and second)
        assert score.error == pytest.approx(at[score.steps][row], rel=1e-5)
        passed = [at[4][row], *([at[10][row]] if first else [])]
        assert score.rungs == pytest.approx(passed, rel=1e-5)
    assert {score.steps for score in found} == {4, 10, 20}


def test_marks_are_what_the_better_half_reached_where_enough_came():
    rungs = [(5.0, 1.0), (4.0,), (), (3.0, 9.0), (2.0, 4.0), (1.0, 7.0)]
    assert marks(rungs) == (3.0, 4.0)  # three of five, two of four
    assert marks(rungs[:4]) == (math.inf,) * 2
    assert fitness(bench_of(), GOOD[:2], bench_of().fitness_trials, (math.inf,) * 2)[1].finished


@pytest.mark.parametrize(
    ("population", "asynchronous", "waits"),
    [(255, None, True), (256, None, False), (256, False, True), (2, True, False)],
)
def test_who_waits_in_a_race_depends_on_the_size_of_a_generation(population, asynchronous, waits):
    assert preset("fast", population=population, asynchronous=asynchronous).waits == waits


def test_an_asynchronous_race_is_against_earlier_generations():
    bench = bench_of(fitness_steps=20, local_search="none", asynchronous=True)
    archive = archive_for(bench)
    first = generation(bench, GOOD[:6], archive)
    waiting = generation(bench_of(fitness_steps=20, local_search="none"), GOOD[:6])
    assert [each.error for each in first] == [each.error for each in waiting]
    assert all("worse half" in each.reason for each in first if each.fate is Fate.RACED_OUT)
    archive.extend(first)
    archive.extend(generation(bench, GOOD[:2], archive, number=1))  # duplicates: none of them races
    asked = []

    class Asked(Supervised):
        def score(self, candidates, racing, tick):
            asked.append(racing)
            return super().score(candidates, racing, tick)

    proposals = [Proposal(each, "initial", ()) for each in GOOD[6:]]
    last = Generation(Asked(bench), archive, 2, proposals, lambda stage, share: None).run()
    assert asked == [marks([each.details["rungs"] for each in first])]
    for each, row in zip(last, (6, 7), strict=True):
        reached = [errors_after(steps)[row] for steps in (4, 10)]
        passed = [error <= mark for error, mark in zip(reached, asked[0], strict=True)]
        steps = 20 if all(passed) else 10 if passed[0] else 4
        assert (each.steps, each.fate is Fate.SCORED) == (steps, all(passed))
        assert each.fate is Fate.SCORED or "worse half of earlier" in each.reason


# What goes wrong


def test_a_training_that_gives_nan_fails_its_candidate_alone():
    bench = bench_of(regression(Steep), local_search="none")
    wild, tame = generation(bench, ["square(square(y - f))", "log(1.0 + square(y - f))"])
    expect_fates([wild, tame], Fate.FAILED, Fate.SCORED)
    assert wild.error is None
    assert wild.steps > 0
    assert "nan" in wild.reason or "inf" in wild.reason
    assert math.isfinite(tame.error)


def test_a_tuning_that_gives_nan_fails_its_candidate_alone():
    bench = bench_of(regression(Steep), reject_first=False)
    wild, tame = generation(bench, ["exp(square(y - f))", "log(1.0 + square(y - f))"])
    expect_fates([wild, tame], Fate.FAILED, Fate.SCORED)
    assert (wild.phi, wild.error, wild.reason) == (None, None, "tuning its weights gave NaN")


def test_a_metric_that_gives_nan_fails_the_candidate():
    def picky(prediction, target):
        error = (prediction - target).square().mean((-2, -1))
        return torch.where(error < 0.1, torch.nan, error) if len(target) == 24 else error

    task = regression()
    bench = bench_of(replace(task, metric=replace(task.metric, function=picky)), fitness_steps=200)
    found, poor = generation(bench, ["square(y - f)", "-square(y - f)"])
    expect_fates([found, poor], Fate.FAILED, Fate.REJECTED)
    assert found.error is None


# The workbench's draws


def test_draws_depend_on_the_seed_and_nothing_else():
    forwards, backwards, other = bench_of(), bench_of(), bench_of(seed=1)
    parts = ("tuning", "fitness_trials", "rejection_start")
    for name in parts:
        getattr(forwards, name)
    for name in reversed(parts):
        getattr(backwards, name)
    for a, b in zip(forwards.fitness_trials, backwards.fitness_trials, strict=True):
        assert torch.equal(a.initial, b.initial)
        assert (a.batches == b.batches).all()
    for a, b in zip(forwards.tuning, backwards.tuning, strict=True):
        assert (a.inner_rows == b.inner_rows).all()
        assert (a.validation_rows == b.validation_rows).all()
    assert torch.equal(forwards.rejection_start[0], backwards.rejection_start[0])
    assert not torch.equal(forwards.fitness_trials[0].initial, other.fitness_trials[0].initial)
    assert not torch.equal(forwards.tuning_weights[0], other.tuning_weights[0])


def test_every_step_of_tuning_has_weights_and_batches_of_its_own():
    bench = bench_of(local_steps=5, unroll=2)
    assert {step.inner_rows.shape for step in bench.tuning} == {(2, 16)}
    assert {step.validation_rows.shape for step in bench.tuning} == {(16,)}
    assert len({bench.tuning_weights[n].sum().item() for n in range(5)}) == 5
    assert len({step.inner_rows.tobytes() for step in bench.tuning}) == 5


def test_finalists_are_scored_on_draws_that_selection_has_not_seen():
    bench = bench_of(fitness_seeds=2)
    seen = {trial.initial.sum().item() for trial in bench.fitness_trials}
    final = bench.final_trials(5)
    assert len(final) == 5
    assert not seen & {trial.initial.sum().item() for trial in final}


def test_episodes_of_a_distribution_are_all_search_episodes():
    bench = bench_of(few_shot(), local_steps=12)
    assert len({step.train.x.sum().item() for step in bench.tuning}) > 3


def test_threads_are_set_for_the_stages_only():
    bench = bench_of()
    before = torch.get_num_threads()
    bench.stacking = {**bench.stacking, "threads": str(before + 1)}

    def stages():
        with bench.threads():
            assert torch.get_num_threads() == before + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stages()
    assert torch.get_num_threads() == before


# The archive


def record(id, error=None, fate=Fate.SCORED, text="square(y - f)", same_as=None, steps=10):
    expr = parse_expression(text)
    return Candidate(id, 0, id, "initial", (), expr, f"form {id}", None, fate, "", error, same_as,
                     steps)  # fmt: skip


def archive_of(*candidates):
    archive = Archive(preset("fast", equivalence=False), lambda loss: None)
    archive.extend(candidates)
    return archive


def test_the_best_is_the_lowest_error_and_of_equals_the_simplest():
    archive = archive_of(
        record(0, 0.5, text="abs(y - f) * 1.0"),
        record(1, 0.1, Fate.RACED_OUT),
        record(2, 0.5, text="y - f"),
        record(3, 0.5, text="f - y"),
        record(4, None, Fate.FAILED),
        record(5, 0.5, Fate.DUPLICATE, "y * f", same_as=2),
    )
    assert archive.best.id == 2
    assert [each.id for each in archive.leading] == [2, 3, 0]
    assert archive_of(record(0, None, Fate.REJECTED)).best is None


def test_standing_puts_full_scores_first_then_who_ran_longest():
    archive = archive_of(
        record(0, 0.1, Fate.RACED_OUT, steps=2),
        record(1, 0.9),
        record(2, 0.3, Fate.RACED_OUT, steps=5),
        record(3, None, Fate.REJECTED),
        record(4, 0.2),
        record(5, 0.9, Fate.DUPLICATE, same_as=1),
        record(6, 0.1, Fate.EQUIVALENT, same_as=0),
        record(7, None, Fate.DUPLICATE, same_as=3),
        record(8, 0.2, Fate.RACED_OUT, steps=5),
    )
    standing = archive.standing(archive.history)
    ranked = sorted((rank, id) for id, rank in standing.items() if rank is not None)
    assert [id for _, id in ranked] == [4, 1, 5, 8, 2, 0, 6]
    assert [id for id, rank in standing.items() if rank is None] == [3, 7]


SIZES = ["y - f", "abs(y - f)", "square(abs(y - f))", "abs(square(abs(y - f)))"]


@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 5)), min_size=1, max_size=12))
def test_pareto_is_what_brute_force_finds(rows):
    pairs = [(record(id, text=text), float(error)) for id, (text, error) in enumerate(rows)]
    points = {
        id: (complexity(each.expression), error, id) for id, (each, error) in enumerate(pairs)
    }

    def beaten(a):
        """By one that is no worse in both and better in one, or the same with a lower id."""
        return any(
            b[0] <= a[0] and b[1] <= a[1] and (b[:2] != a[:2] or b[2] < a[2])
            for b in points.values()
            if b != a
        )

    front = sorted(id for id, point in points.items() if not beaten(point))
    found = pareto(pairs)
    assert sorted(each.id for each in found) == front
    sizes = [complexity(each.expression) for each in found]
    assert sizes == sorted(sizes)
