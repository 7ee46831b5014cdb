"""Slopes after a step of training, against finite differences of it written out in float64."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from evoloss.errors import UserError
from evoloss.lang.parse import parse
from evoloss.unlearn import one_step
from evoloss.unlearn.constants import Tunable, Tunables
from evoloss.unlearn.objective import LossObjective, Rows
from evoloss.unlearn.one_step import OneStep, evolution_slope, hypergradient
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.trainer import begin
from families import model_of
from tiny_llama import sets, transformers
from tunable import (
    ALONE,
    CLIP,
    FLOOR,
    LORA,
    LR,
    NPO,
    SQUARES,
    STEPS,
    WGA,
    restless_model,
    signature,
)


def problem_of(model, *texts, retain=True):
    """The third step that some losses take, with the moments of those before it."""
    data = sets(model, retain)
    tunable = [Tunable.of(parse(each, signature(each, retain)), signature(each, retain))
               for each in texts]  # fmt: skip
    batches, validation = (
        LossObjective([], data, 3, STEPS, np.random.default_rng(seed)) for seed in (3, 4)
    )
    width = max(len(each.constants) for each in tunable)
    rho = torch.zeros(len(texts), width, dtype=torch.float64)
    problem = OneStep(
        model, LORA, Tunables(tunable, batches, rho), validation, FLOOR,
        [Schedule(STEPS, LR, CLIP)] * len(texts), [begin(model, LORA, 7)] * len(texts),
    )  # fmt: skip
    for _ in range(2):
        problem = replace(problem, standing=problem.taken(rho))
    return problem


def norm_in_full(self, x):
    return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


@pytest.fixture
def in_double_precision(monkeypatch):
    """All of a model, which otherwise takes its norms and log-probabilities in single precision."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    norm = transformers.models.llama.modeling_llama.LlamaRMSNorm
    monkeypatch.setattr(norm, "forward", norm_in_full)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class ByHand:
    """The step of a problem's first loss, in float64, with adapters merged into the weights."""

    def __init__(self, problem, retain=True):
        self.model = copy.deepcopy(problem.model).double()
        self.plain = dict(self.model.named_parameters())
        standing = problem.standing[0]
        self.theta = [each.double() for each in standing.weights.values()]
        self.layers = [name[len("base_model.model.") : -len(".lora_A.weight")]
                       for name in standing.weights if "lora_A" in name]  # fmt: skip
        self.moments = [[m.double(), v.double()] for m, v in standing.moments]
        data = problem.losses.batches.sets
        self.seen, self.judged_on = (
            [(data.forget, of.forget[2])] + ([(data.retain, of.retain[2])] if retain else [])
            for of in (problem.losses.batches, problem.validation)
        )

    def rows(self, theta, given):
        """For each set, one (token log-probabilities, those of the reference) for each row."""
        pairs = zip(theta[::2], theta[1::2], strict=True)
        weights = {
            f"{name}.weight": self.plain[f"{name}.weight"] + 8.0 / 2 * b @ a
            for name, (a, b) in zip(self.layers, pairs, strict=True)
        }
        return [[self.row(weights, part, int(at)) for at in index] for part, index in given]

    def row(self, weights, part, at):
        tokens = part.data.tokens[at][part.data.attention[at] > 0]
        scores = functional_call(self.model, weights, (tokens[None],)).logits[0].log_softmax(-1)
        places = part.data.answer[at].nonzero()[:, 0]
        found = torch.stack([scores[place - 1, tokens[place]] for place in places])
        return found, part.reference[at][places].double()

    def gradient(self, written, phi):
        theta = [each.clone().requires_grad_() for each in self.theta]
        value = written(phi, *self.rows(theta, self.seen))
        return torch.autograd.grad(value, theta, materialize_grads=True)

    def hold(self, gradient):
        """Fixes the scaling of AdamW's third step to what it is for a gradient."""
        norm = math.sqrt(sum(float(each.square().sum()) for each in gradient))
        self.clip = min(1.0, CLIP / norm)
        self.pace = [
            LR * (1 - 2 / STEPS) / (1 - 0.9**3)
            / (((0.999 * v + 0.001 * (self.clip * g) ** 2) / (1 - 0.999**3)).sqrt() + 1e-8)
            for (_, v), g in zip(self.moments, gradient, strict=True)
        ]  # fmt: skip

    def outcome(self, written, phi):
        gradient = self.gradient(written, phi)
        if not hasattr(self, "pace"):
            self.hold(gradient)
        theta = [
            p - pace * (0.9 * m + 0.1 * self.clip * g)
            for p, pace, (m, _), g in zip(
                self.theta, self.pace, self.moments, gradient, strict=True
            )
        ]
        with torch.no_grad():
            forget, *retain = self.rows(theta, self.judged_on)
        odds = [(float(now.mean().exp()), float(ref.mean().exp())) for now, ref in forget]
        left = sum(now for now, _ in odds) / sum(ref for _, ref in odds)
        gone = min(1.0, (1 - left) / (1 - FLOOR))
        if not retain:
            return -gone
        falls = [min(0.0, float(now.mean() - ref.mean())) for now, ref in retain[0]]
        kept = math.exp(sum(falls) / len(falls))
        return -(gone + kept) / 2


def means(rows):
    return torch.stack([now.mean() for now, _ in rows]), torch.stack(
        [ref.mean() for _, ref in rows]
    )


def npo(phi, forget, retain):
    now, ref = means(forget)
    inner = torch.nn.functional.logsigmoid(phi[1] * (now - ref)).mean()
    return phi[0] * inner - phi[2] * means(retain)[0].mean()


def wga(phi, forget, retain):
    tokens = torch.cat([now for now, _ in forget])
    weight = (phi[0] * tokens).exp().detach()
    return (weight * tokens).mean() - phi[1] * torch.cat([now for now, _ in retain]).mean()


def squares(phi, forget, retain):
    now, ref = means(retain)
    misses = (now - phi[1] * ref).square().mean()
    return means(forget)[0].mean() + phi[0] * misses + phi[2] * now.square().sum().sqrt()


def alone(phi, forget):
    now, ref = means(forget)
    soft = torch.nn.functional.softplus(phi[0] * (now - ref)).mean()
    return soft + phi[1] * (phi[2] * now).exp().mean()


@pytest.mark.parametrize(
    ("text", "written", "phi"),
    [
        (NPO, npo, (-20.0, -0.1, 0.7)),
        (WGA, wga, (0.5, 0.3)),
        (SQUARES, squares, (2.0, 1.1, 0.4)),
        (ALONE, alone, (0.3, 0.2, 0.5)),
    ],
)
def test_the_hypergradient_is_that_of_finite_differences(text, written, phi, in_double_precision):
    retain = text != ALONE
    problem = problem_of(restless_model(), text, retain=retain)
    assert problem.losses.losses[0].constants == phi
    by_hand = ByHand(problem, retain)
    # The step looked ahead to is the one that the trainer takes.
    rho = torch.zeros(1, len(phi), dtype=torch.float64)
    taken = float(one_step._outcome(problem, rho)[0])
    assert taken == pytest.approx(by_hand.outcome(written, phi), rel=1e-12)
    width, wanted = 1e-4, []
    for at in range(len(phi)):
        above, below = (
            by_hand.outcome(written, [c * math.exp(sign * width * (at == number))
                                      for number, c in enumerate(phi)])
            for sign in (1, -1)
        )  # fmt: skip
        wanted.append((above - below) / (2 * width))
    assert min(map(abs, wanted)) > 1e-4
    assert hypergradient(problem, rho)[0].tolist() == pytest.approx(wanted, rel=1e-5)


def test_the_objective_rewards_no_more_than_there_is_to_gain():
    def judged(forget, retain=(0.0, 0.0)):
        def rows(moved):
            before = torch.tensor([[-0.3, 0.0], [-0.1, -0.2]])
            answer = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
            moved = torch.tensor(moved)[:, None] * answer
            return Rows(before + moved, before, answer)

        return float(one_step.judgement({"forget": rows(forget), "retain": rows(retain)}, 0.3))

    assert judged((0.0, 0.0)) == pytest.approx(-0.5)
    assert judged((-30.0, -30.0)) == pytest.approx(-1.0)
    assert judged((-30.0, -30.0), (5.0, 5.0)) == judged((-30.0, -30.0))
    assert judged((-30.0, -30.0), (5.0, -1.0)) == judged((-30.0, -30.0), (0.0, -1.0)) > -0.9
    assert judged((-2.0, -2.0)) == judged((-30.0, -30.0))  # both below the floor
    assert judged((0.0, 0.0)) > judged((-0.5, -0.5)) > judged((-2.0, -2.0))


def quadratic(problem, rho):
    """Σ (ρ − (1, −2, 3))², twice that for the second."""
    target = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    return (rho - target).square().sum(1) * torch.tensor([1.0, 2.0])[: len(rho)]


def test_evolution_strategies_estimate_the_gradient(monkeypatch):
    monkeypatch.setattr(one_step, "_outcome", quadratic)
    problem = problem_of(restless_model(), NPO, SQUARES)
    rho = torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    wanted = torch.autograd.functional.jacobian(lambda r: quadratic(None, r).sum(), rho)
    pairs = 2000
    found = evolution_slope(problem, rho, pairs, 0.1, np.random.default_rng(0))
    deviation = (wanted.square().sum(1, keepdim=True) + wanted.square()).sqrt() / pairs**0.5
    assert ((found - wanted).abs() < 4 * deviation).all()
    few = evolution_slope(problem, rho, 4, 0.1, np.random.default_rng(0))
    assert ((few * wanted).sum(1) > 0).all()


def test_a_pair_that_breaks_down_is_left_out(monkeypatch):
    def partly(problem, rho):
        return torch.where(rho[:, 0] > 0.05, torch.nan, quadratic(problem, rho))

    problem = problem_of(restless_model(), NPO)
    rho = torch.zeros(1, 3, dtype=torch.float64)
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8))).T
    whole = [each for each in drawn if abs(each[0]) * 0.1 <= 0.05]
    assert 0 < len(whole) < 8
    slope = torch.tensor([-2.0, 4.0, -6.0], dtype=torch.float64)
    wanted = torch.stack([each * (each @ slope) for each in whole]).mean(0)
    monkeypatch.setattr(one_step, "_outcome", partly)
    found = evolution_slope(problem, rho, 8, 0.1, np.random.default_rng(0))
    torch.testing.assert_close(found[0], wanted)


def test_an_architecture_without_forward_mode_derivatives_is_told():
    problem = problem_of(model_of("Bloom"), NPO)
    with pytest.raises(UserError, match=r"without a forward-mode derivative: .*search es"):
        hypergradient(problem, problem.losses.rho)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_looking_a_step_ahead_is_taking_it(kind, monkeypatch):
    problem = problem_of(restless_model(), NPO)
    schedules = [replace(each, kind=kind, warmup=0.9) for each in problem.schedules]
    problem = replace(problem, schedules=schedules)
    look_ahead, found = one_step._look_ahead, {}

    def noted(*given):
        found["stepped"], scaling = look_ahead(*given)
        return found["stepped"], scaling

    monkeypatch.setattr(one_step, "_look_ahead", noted)
    hypergradient(problem, problem.losses.rho)
    [taken] = problem.taken(problem.losses.rho)
    for one, other in zip(found["stepped"], taken.weights.values(), strict=True):
        torch.testing.assert_close(one[0].detach(), other)
