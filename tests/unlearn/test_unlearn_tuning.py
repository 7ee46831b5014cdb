"""The tuning of the constants inside unlearning losses, alone and in a search."""

import gc
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import fictional
from cramped import cramp
from evoloss.discovery.candidate import Fate
from evoloss.lang.parse import parse
from evoloss.lang.text import to_text
from evoloss.lang.zoo import loss
from evoloss.unlearn import constants, tuning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.constants import Tunable, free
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.search import resume, search
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import Sharing
from evoloss.unlearn.trainer import begin
from evoloss.unlearn.tuning import tune
from tiny_llama import sets
from tunable import (
    ALONE,
    CLIP,
    FLOOR,
    LORA,
    LR,
    NPO,
    SQUARES,
    WGA,
    losses_of,
    restless_model,
    signature,
)


def bench_of(model, retain=True, **settings):
    """As much of a `Bench` as tuning looks at, and a search of 3 local steps."""
    chosen = {"batch": 3, "lr": LR, "clip": CLIP, "rank": 2, "alpha": 8.0, "epochs": 2,
              "local_search": "unrolled", "local_steps": 3, **settings}  # fmt: skip
    phase = SimpleNamespace(
        sets=None if model is None else sets(model, retain),
        original=SimpleNamespace(values={"forget_prob": 1.0}),
        retain=SimpleNamespace(values={"forget_prob": FLOOR}),
    )
    bench = SimpleNamespace(
        settings=UnlearnSettings(**chosen),
        searching=phase,
        validation=phase.sets,
        has_retain=retain,
        language=SimpleNamespace(model=model),
        start=None if model is None else begin(model, LORA, 5),
        sharing=Sharing(16, 1),
        steps=lambda phase, epochs: epochs * 3,
        say=lambda line: None,
    )
    bench.in_parts = partial(Bench.in_parts, bench)
    return bench


def tuned(bench, *texts, tick=lambda share: None):
    found = tune(bench, losses_of(*texts, retain=bench.has_retain), tick)
    return [each.phi for each in found]


@pytest.mark.parametrize("local_search", ["unrolled", "es"])
def test_side_by_side_is_as_alone(local_search):
    bench = bench_of(restless_model(), local_search=local_search, es_pairs=2)
    together = tuned(bench, NPO, WGA, SQUARES)
    for text, found in zip((NPO, WGA, SQUARES), together, strict=True):
        (alone,) = tuned(bench, text)
        assert found == pytest.approx(alone, rel=1e-4)
        assert found != pytest.approx(Tunable.of(*losses_of(text), signature(text)).constants)
    bench.sharing = Sharing(2, 1)
    assert tuned(bench, NPO, WGA, SQUARES) == [pytest.approx(each, rel=1e-4) for each in together]


@pytest.mark.parametrize("local_search", ["unrolled", "es"])
def test_a_loss_that_breaks_down_is_its_own_affair(local_search, monkeypatch):
    monkeypatch.setattr(constants, "fault", lambda loss, signature: None)
    bench = bench_of(restless_model(), local_search=local_search, es_pairs=2)
    broken, fine = tuned(bench, "0.5*mean(exp(-1000*log_probs_forget))", NPO)
    assert all(map(math.isnan, broken))
    assert fine == pytest.approx(tuned(bench, NPO)[0], rel=1e-4)


def test_nothing_is_trained_for_losses_without_constants():
    bench = bench_of(None)
    with_zero = "mean(log_probs_forget) + 0*mean(log_probs_retain)"
    assert tuned(bench, "mean(log_probs_forget)", with_zero) == [(), (0.0,)]


def test_a_constant_without_effect_stays_beside_one_that_moves():
    (found,) = tuned(
        bench_of(restless_model()), "3 + mean(log_probs_forget) - 2*mean(log_probs_retain)"
    )
    assert found[0] == 3.0
    assert found[1] != 2.0
    (found,) = tuned(bench_of(restless_model()), "3 + mean(log_probs_forget)")
    assert found == (3.0,)


def test_without_a_retain_set():
    (found,) = tuned(bench_of(restless_model(), retain=False), ALONE)
    assert all(map(math.isfinite, found))
    assert found != (0.3, 0.2, 0.5)


@pytest.mark.parametrize("known", [0.5, 0.2, 0.0])
def test_a_retain_model_that_knows_no_less_is_no_floor(known):
    """There is no part above it: the objective would have no slope, or reward what is to go."""
    bench = bench_of(restless_model())
    bench.searching.retain = None
    (wanted,) = tuned(bench, NPO)
    bench.searching.original.values["forget_prob"] = known
    bench.searching.retain = SimpleNamespace(values={"forget_prob": 0.5})
    assert tuned(bench, NPO) == [wanted]
    bench.searching.original.values["forget_prob"] = 0.9
    assert tuned(bench, NPO) != [wanted]


def test_trainings_run_by_the_schedule_of_the_settings():
    found = [tuned(bench_of(restless_model(), local_steps=2, schedule=kind), NPO)
             for kind in ("linear", "constant")]  # fmt: skip
    assert found[0] != found[1]


def test_a_second_training_begins_when_the_first_is_over():
    bench = bench_of(restless_model(), epochs=1, local_steps=7)
    (found,) = tuned(bench, NPO)
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (NPO, (True, True, True)),
        (WGA, (True, True)),
        ("mean(square(3 + log_probs_forget)) + 0*mean(log_probs_forget)", (True, False)),
        ("2*mean(pow(-log_probs_forget, 2)) - 5", None),
        ("-1*mean(pow(log_probs_forget, 2))", (True, False)),
        ("-2*mean(pow(-log_probs_forget, 1.5))", (True, True)),
        (
            "mean(where(log_probs_forget > -30, 2*log_probs_forget, log_probs_forget))",
            (False, True),
        ),
        ("2*mean(head(sort(log_probs_forget), 3))", (True, False)),
        ("2*mean(log_probs_forget) - quantile(log_probs_retain, 0.5)", (True, False)),
        (to_text(loss("sat-imp")), (True, True, False, True, True)),
        (to_text(loss("ce-u")), (False, True)),
    ],
)
def test_what_a_constant_is_good_for_decides_whether_it_is_tuned(text, wanted):
    if wanted is None:  # it fails the cheap tests as it is
        wanted = (False, False, False)
    expr = parse(text, signature(text))
    assert free(expr, signature(text)) == wanted
    (found,) = tuned(bench_of(restless_model(), local_steps=2), text)
    before = Tunable.of(expr, signature(text)).constants
    assert [now != was for now, was in zip(found, before, strict=True)] == list(wanted)
    assert all(now * was >= 0 for now, was in zip(found, before, strict=True))


def test_evolution_strategies_repeat_themselves():
    def found(seed):
        bench = bench_of(restless_model(), local_search="es", es_pairs=2, seed=seed)
        return tuned(bench, NPO, WGA)

    assert found(0) == found(0) != found(1)


@pytest.mark.parametrize("local_search", ["unrolled", "es"])
def test_memory_does_not_grow_from_step_to_step(local_search):
    bench = bench_of(restless_model(), local_search=local_search, local_steps=5, es_pairs=1)
    counts = []

    def tick(share):
        gc.collect()  # of what has been made since; what was there before is not gone through
        live = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        counts.append((len(live), sum(each.numel() for each in live)))

    gc.collect()
    gc.freeze()
    try:
        tuned(bench, NPO, WGA, tick=tick)
    finally:
        gc.unfreeze()
    assert len(counts) == 5
    assert len(set(counts[1:-1])) == 1


def test_afterwards_the_model_is_as_it_was():
    model = restless_model()
    before = {name: each.clone() for name, each in model.named_parameters()}
    tuned(bench_of(model), NPO)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(each.requires_grad and each.grad is None for each in after.values())


def test_out_of_memory_halves_how_many_are_tuned_at_a_time(monkeypatch):
    whole, said = tuning._tuned, []

    def cramped(bench, losses, tick):
        if len(losses) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(bench, losses, tick)

    bench = bench_of(restless_model(), local_steps=1)
    bench.say = said.append
    wanted = tuned(bench, NPO, WGA, SQUARES)
    monkeypatch.setattr(tuning, "_tuned", cramped)
    assert tuned(bench, NPO, WGA, SQUARES) == [pytest.approx(each, rel=1e-4) for each in wanted]
    assert bench.sharing.together == 1
    assert said == ["out of memory: 1 adapter at a time from here on"]


@pytest.mark.parametrize("local_search", ["unrolled", "es"])
def test_out_of_memory_with_one_halves_the_rows_that_go_through_the_model(
    monkeypatch, local_search
):
    settings = {"local_search": local_search, "local_steps": 2, "es_pairs": 1}
    bench, said = bench_of(restless_model(), **settings), []
    bench.say = said.append
    wanted = tuned(bench, WGA)
    passes = cramp(monkeypatch, 1)
    assert tuned(bench, WGA) == [pytest.approx(each, rel=1e-4) for each in wanted]
    assert passes[0] == 3
    assert max(passes[1:]) == 1
    assert said == ["out of memory: 1 row of a batch at a time from here on"]


def test_a_search_tunes_and_goes_on_where_it_was_broken_off(tmp_path):
    fictional.model().save_pretrained(tmp_path / "model")
    fictional.tokenizer().save_pretrained(tmp_path / "model")
    data = replace(fictional.data(), probes={}, choices={})
    problem = Problem(data, str(tmp_path / "model"), None, None)
    settings = {"local_search": "unrolled", "population": 3, "generations": 2, "finalists": 1,
                "final_seeds": 1, "final_rates": (1.0,), "local_steps": 2, "epochs": 3, "lr": 5e-3,
                "context": fictional.CONTEXT, "texts": 2, "together": 3}  # fmt: skip

    def stop(progress):
        if progress.stage == "saved" and progress.generation == 1:
            raise KeyboardInterrupt

    whole, _ = search(problem, **settings)
    with pytest.raises(KeyboardInterrupt):
        search(problem, out=tmp_path / "run", observer=stop, **settings)
    again, _ = resume(tmp_path / "run", problem=problem)
    assert [(to_text(each.expression), each.fate) for each in again.history] == [
        (to_text(each.expression), each.fate) for each in whole.history
    ]
    scored = [each for each in whole.history if each.fate is Fate.SCORED]
    usual = next(each for each in scored if each.id == 0)
    assert usual.steps > 2
    assert to_text(usual.expression) != to_text(loss("grad-diff"))
