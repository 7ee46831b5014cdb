"""Nothing is left on the CPU: steps on a second device have the very numbers of the first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evoloss

pytest.importorskip("triton", reason="triton is not installed")

TESTS = Path(__file__).parents[1]
SOURCE = Path(evoloss.__file__).parents[1]

SCRIPT = """
import json
import interpreted
import numpy as np
import second_device as two
import torch
from torch import nn

from evoloss.engine import triton_form
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.optimisers import SGD
from evoloss.engine.stack import parameters
from evoloss.engine.stacking import make_stack
from evoloss.engine.training import Batches, Trained, predict, train
from evoloss.lang.parse import parse
from evoloss.local_search.inner import Inner
from evoloss.local_search.unrolled import hypergradient

interpreted.prepare_once()
kernel = triton_form.launch


def launch(name, grid, tensors, numbers, others):
    two.check_together(name, *tensors, *others)
    kernel(name, grid, tuple(map(two.held, tensors)), numbers, tuple(map(two.held, others)))


triton_form.launch = launch
draws = torch.Generator().manual_seed(0)
LOSSES = [parse(each) for each in ("square(y - f)", "abs(2.0 * y - f) * tanh(f)")]
NETWORKS = {
    "dense": (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (4,)),
    "loop": (
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (1, 3, 3)
    ),
}


def everything(way, backend, device):
    network, shape = NETWORKS[way]
    stack = make_stack(network, dict.fromkeys(("train", "pull_shared", "push"), way))
    x, y = X[way].to(device), Y.to(device)
    theta = parameters(network)[None].to(device)
    sgd = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    losses, usual = (LossPopulation(each, "edges", backend) for each in (LOSSES, LOSSES[:1] * 2))
    phi = losses.initial_phi(device)
    inner = Inner(stack, losses, usual, "softmax", sgd, device)
    batches = [(x[:2], y[:2]), (x[2:4], y[2:4])]
    validation = (x[4:], y[4:])
    trained = train(Trained.start(theta, 2), stack, losses, phi,
                    Batches(x, y, np.array([[0, 1], [2, 3]])), "softmax", sgd)
    return [
        trained.theta, trained.velocity, predict(stack, trained.theta, x, "softmax"),
        hypergradient(inner, theta, batches[:1], validation, phi),
        hypergradient(inner, theta, batches, validation, phi),
    ]


X = {way: torch.randn(6, *shape, generator=draws) for way, (_, shape) in NETWORKS.items()}
Y = torch.randn(6, 2, generator=draws).softmax(-1)
found = {}
for way in NETWORKS:
    for backend in ("torch", "triton"):
        here = everything(way, backend, torch.device("cpu"))
        with two.two_devices():
            there = everything(way, backend, two.ELSEWHERE)
            assert all(isinstance(each, two.Elsewhere) for each in there), backend
        found[f"{way} {backend}"] = max(
            float((a - two.held(b)).abs().max()) for a, b in zip(here, there, strict=True)
        )
print(json.dumps(found))
with two.two_devices():
    try:
        torch.ones(2, device=two.ELSEWHERE) + torch.ones(2)
    except two.MixedDevices:
        print("refused")
two.leave()
"""


@pytest.mark.slow
def test_steps_on_a_second_device_have_the_numbers_of_the_first():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], env=environment,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers, refused = done.stdout.splitlines()
    for way, apart in json.loads(numbers).items():
        # Sums of products are ordered by how the operands lie in memory, which is not the same.
        assert apart <= 1e-8, way
    assert len(json.loads(numbers)) == 4
    assert refused == "refused"
