"""Nothing of unlearning is left on the CPU, and no step of a training waits for a GPU.

On the device of `second_device`, which computes here: its numbers are those of the CPU, but for the
order of sums.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evoloss

pytest.importorskip("transformers", reason="transformers is not installed")

TESTS = Path(__file__).parents[1]
SOURCE = Path(evoloss.__file__).parents[1]

BEGIN = """
import json
import numpy as np
import second_device as two
import torch

from evoloss.lang import zoo
from evoloss.lang.evaluate import torch_operator
from evoloss.lang.expr import walk
from evoloss.lang.ops import BATCH_KINDS, OPERATORS
from evoloss.unlearn.adapters import LoraSettings, attached
from evoloss.unlearn.constants import Tunable, Tunables
from evoloss.unlearn.objective import LossObjective, signature_of
from evoloss.unlearn.one_step import OneStep, hypergradient
from evoloss.unlearn.rivals import RIVALS, Context
from evoloss.unlearn.schedule import Schedule
from evoloss.unlearn.trainer import advance, begin

CPU, LORA, STEPS = torch.device("cpu"), LoraSettings(rank=2, alpha=8.0), 4
LOSSES = [zoo.loss(name) for name in zoo.names("unlearning")]
# What a mask selects is as long as the mask says, and Python asks for that.
SURE = [each for each in LOSSES if all(getattr(node, "op", "") != "select" for node in walk(each))]
assert len(SURE) == 4


def moved(model, device):
    model.config._attn_implementation = "eager"  # the other ways are kernels of one device
    return torch.nn.Module.to(model, device)


def numbers(progress):
    parts = [*progress.weights.values(), *(each for pair in progress.moments for each in pair)]
    assert not any(isinstance(each, two.Elsewhere) for each in parts)
    return torch.cat([each.flatten() for each in parts])


def on_both(function):
    here = function(CPU)
    with two.two_devices():
        there = function(two.ELSEWHERE)
    assert len(here) == len(there)
    return max(float((a - two.held(b)).abs().max()) for a, b in zip(here, there, strict=True))
"""

TRAINING = """
from tiny_llama import sets, small_model


def drawn(device):
    model = small_model(0.2)
    data = sets(model).to(device)
    return moved(model, device), data


def objective_of(data, losses=LOSSES, seed=3):
    return LossObjective(losses, data, 3, STEPS, np.random.default_rng(seed))


def trained(device):
    model, data = drawn(device)
    schedules = [Schedule(STEPS, 1e-2, 0.5, 0.01 * (n % 2)) for n in range(len(LOSSES))]
    start = [begin(model, LORA, 7)] * len(LOSSES)
    done = advance(
        model, LORA, objective_of(data), schedules, start, range(len(LOSSES)), STEPS
    )
    assert all(each.fine and each.moved for each in done)
    return [numbers(each) for each in done]


def tuned(device):
    model, data = drawn(device)
    problem = problem_of(model, data).moved_on(2)
    return [hypergradient(problem, problem.losses.rho), *map(numbers, problem.standing)]


def problem_of(model, data, losses=LOSSES):
    tunable = [Tunable.of(each, signature_of(each, True)) for each in losses]
    rho = torch.zeros(len(losses), max(len(each.constants) for each in tunable)).double()
    return OneStep(
        model, LORA, Tunables(tunable, objective_of(data, []), rho), objective_of(data, [], 4), 0.1,
        [Schedule(STEPS, 1e-2)] * len(losses), [begin(model, LORA, 7)] * len(losses),
    )


def rivals(device):
    model, data = drawn(device)
    found = []
    for name in ("RMU", "UNDIAL"):
        objective = rival(name, model, data)
        start, schedules = [begin(model, LORA, 7)] * 2, [Schedule(STEPS, 1e-2)] * 2
        found += advance(model, LORA, objective, schedules, start, range(2), STEPS)
    return [numbers(each) for each in found]


def rival(name, model, data):
    rng = np.random.default_rng(3)
    context = Context(model, None, data, (), 32, 3, STEPS, rng)
    return RIVALS[name].make([{}, {"alpha": 2.0}], context)


def operators(device):
    given = {
        "vector": torch.tensor([0.5, -1.0, 2.0, 0.25]), "scalar": torch.tensor(0.5),
        "mask": torch.tensor([1.0, 0.0, 1.0, 1.0]), "number": torch.tensor([1.0, 2.0]),
    }
    given = {name: each.to(device) for name, each in given.items()}
    rows = [row for row in OPERATORS.values() if row.kind in BATCH_KINDS]
    assert len(rows) > 15
    found = [torch_operator(row.name)(*(given[each] for each in row.takes)) for row in rows]
    return [each.double() if each.numel() else torch.zeros(1).to(device) for each in found]


def waits(objective, count, device, steps):
    model, data = drawn(device)
    made = objective(model, data)
    schedules, start = [Schedule(STEPS, 1e-2)] * count, [begin(model, LORA, 7)] * count
    two.crossings.clear()
    advance(model, LORA, made, schedules, start, range(count), steps)
    return len(two.crossings)


OBJECTIVES = {
    "losses": (lambda model, data: objective_of(data, SURE), len(SURE)),
    "tunables": (lambda model, data: problem_of(model, data, SURE).losses, len(SURE)),
    "RMU": (lambda model, data: rival("RMU", model, data), 2),
    "UNDIAL": (lambda model, data: rival("UNDIAL", model, data), 2),
}
apart = {each.__name__: on_both(each) for each in (operators, trained, tuned, rivals)}
waiting = {}
with two.two_devices():
    for name, (objective, count) in OBJECTIVES.items():
        waiting[name] = [waits(objective, count, two.ELSEWHERE, steps) for steps in (1, STEPS)]
    two.crossings.clear()
    vector = torch.ones(3).to(two.ELSEWHERE)
    vector[vector > 0.5].sum().item()
    vector[torch.tensor([1])].tolist()
print(json.dumps([apart, waiting, sorted(two.crossings)]))
"""

MEASURING = """
import fictional
from evoloss.unlearn.measurement import measure
from evoloss.unlearn.prepared import prepare
from evoloss.unlearn.tokens import Encoder

encoder = Encoder(fictional.tokenizer())
prepared = prepare(fictional.data(), encoder, fictional.CONTEXT, 4)
said = []


def measured(device):
    model = moved(fictional.model(), device)
    with attached(model, 2, LORA) as adapters:
        if device.type == "cpu":
            fictional.stir(adapters)
            measured.states = adapters.states()
        adapters.load(measured.states)
        found = measure(model, encoder, prepared, copies=2)
    said.append([each.answers for each in found])
    return [torch.tensor([value for value in each.values.values()]) for each in found]


apart = on_both(measured)
print(json.dumps([apart, said[0] == said[1]]))
"""


@pytest.fixture(scope="module")
def answers():
    """Of both scripts, one after the other in a process that imports transformers once."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    whole = f"{BEGIN}{TRAINING}{MEASURING}two.leave()"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", whole], env=environment,
                          capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_trainings_on_a_second_device_have_the_numbers_of_the_first_and_wait_for_nothing(answers):
    apart, waiting, noted = answers[0]
    assert set(apart) == {"operators", "trained", "tuned", "rivals"}
    assert max(apart.values()) < 1e-5, apart
    for name, counts in waiting.items():
        assert len(set(counts)) == 1, f"{name}: crossings in trainings of 1 and 4 steps {counts}"
    # A move, `item`, a mask and a place on the CPU are noted, so that there were none.
    assert set(noted) == {"_to_copy", "_local_scalar_dense", "index", "tolist"}
    assert noted.count("index") == 2


@pytest.mark.slow
def test_what_is_measured_on_a_second_device_is_what_is_measured_on_the_first(answers):
    apart, same = answers[1]
    assert apart < 1e-4
    assert same, "the texts that are generated"
