"""Prints how far base trainings are from what the machine's matrix products allow.

`python benchmarks/limits.py [NETWORK …] [--rounds 3] [--profile]`

For each network: the trainings of a generation under the usual loss, and a plain loop of torch's
matrix products of the same sizes with nothing between them, in turn. What is counted is the
floating-point operations of these products: forwards, for the weights' gradients, and for those of
the layers below; losses, activations, minibatches and optimisers are time but no operations. The
product of two large matrices is what a core can do at best. Loop and product have one thread.

Time is that of the processor, so these are rates of one core, whoever else wants it. `--profile`
also prints where the time of trainings in torch goes. Those of perceptrons are not in torch: a step
is one compiled function.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from statistics import median

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import torch
import workers
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from evoloss.discovery.settings import preset
from evoloss.discovery.workbench import Workbench
from evoloss.engine.loss_population import LossPopulation
from evoloss.engine.training import Batches, Trained, fresh_network, train_each
from evoloss.tasks.registry import load_task
from evoloss.tasks.task import Task

Sizes = tuple[int, int, int]
"""A product of (m, k) and (k, n)."""
LARGE = 1024
AT_LEAST = 0.1
"""Seconds of a measurement."""


@dataclass(frozen=True)
class Case:
    """A generation of networks in training."""

    task: Callable[[], Task]
    population: int
    steps: int


CASES = {
    "linear": Case(lambda: load_task("diabetes", network="linear"), 25, 100),
    "mlp:64,64": Case(lambda: load_task("digits", network="mlp:64,64"), 25, 100),
    "mlp:256,256": Case(lambda: load_task("digits", network="mlp:256,256"), 25, 20),
    "lenet5": Case(workers.bars, 4, 3),
}


def products(network: nn.Module, x: Tensor) -> list[Sizes]:
    """The products of one training step on a minibatch x; a convolution is one of patches."""
    found: list[Sizes] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        n, k = weight.shape[0], prod(weight.shape[1:])
        m = output.numel() // n
        found.append((m, k, n))  # forwards
        found.append((n, m, k))  # the gradient of the weight
        if len(found) > 2:
            found.append((m, n, k))  # the gradient of what is below, not of the inputs

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(note)
    network(x)
    return found


def operations(sizes: Sequence[Sizes]) -> int:
    return sum(2 * m * k * n for m, k, n in sizes)


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain(sizes: Sequence[Sizes]) -> Callable[[], None]:
    """Does these products, to the same places every time."""
    made = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in sizes]

    def work() -> None:
        with one_thread():
            for a, b, out in made:
                torch.mm(a, b, out=out)

    return work


def trainings(case: Case, device: str = "cpu") -> tuple[Callable[[], None], list[Sizes]]:
    """Trains a generation; and the products of one step of one network."""
    bench = Workbench(case.task(), preset("fast", population=case.population, device=device,
                                          fitness_steps=case.steps))  # fmt: skip
    trial, task = bench.fitness_trials[0], bench.task
    losses = LossPopulation([bench.usual] * case.population, "none")
    start = Trained.start(trial.initial, case.population)
    batches = Batches(trial.train.x, trial.train.y, trial.batches)

    def work() -> None:
        with bench.threads():
            train_each([start], bench.stack, losses, losses.initial_phi(bench.device), [batches],
                       task.output, bench.sgd, bench.graphs)  # fmt: skip

    x = trial.train.x[: len(trial.batches[0])].cpu()
    return work, products(fresh_network(task.network, 0), x)


def rates(case: Case, rounds: int) -> tuple[float, float, float]:
    """Operations a second of processor time: trainings, the plain loop, a large product."""
    work, sizes = trainings(case)
    every = {
        work: operations(sizes) * case.population * case.steps,
        plain(sizes): operations(sizes),
        plain([(LARGE, LARGE, LARGE)]): 2 * LARGE**3,
    }
    repeats = {each: max(1, round(AT_LEAST / _seconds(each))) for each in every}
    found: dict[Callable[[], None], list[float]] = {each: [] for each in every}
    for _ in range(rounds):
        for each, count in every.items():
            begin = time.process_time()
            for _ in range(repeats[each]):
                each()
            spent = time.process_time() - begin
            found[each].append(count * repeats[each] / spent)
    one, other, third = map(median, found.values())
    return one, other, third


def _seconds(work: Callable[[], None]) -> float:
    """Of processor time; the first call compiles and fills caches."""
    work()
    begin = time.process_time()
    work()
    return max(1e-7, time.process_time() - begin)


def shares(case: Case) -> list[tuple[str, float]]:
    """torch's operations in a training, each with its share of the time, less those within it."""
    work, _ = trainings(case)
    work()
    with one_thread(), profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    times = {each.key: each.self_cpu_time_total for each in profiled.key_averages()}
    whole = sum(times.values())
    return sorted(((key, each / whole) for key, each in times.items()), key=lambda row: -row[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print("10⁹ operations a second of processor time: trainings, plain loop, large product")
    for name in arguments.networks or CASES:
        own, loop, large = rates(CASES[name], arguments.rounds)
        print(
            f"{name:12} {own / 1e9:8.2f} {loop / 1e9:8.2f} {large / 1e9:8.2f}   trainings reach "
            f"{own / loop:.0%} of the loop, and {own / large:.1%} of the large product",
            flush=True,
        )
        if arguments.profile and not name.startswith(("linear", "mlp")):
            for operation, share in shares(CASES[name])[:8]:
                print(f"    {share:6.1%} {operation}", flush=True)
    print("load average " + " ".join(f"{each:.1f}" for each in os.getloadavg()))


if __name__ == "__main__":
    main()
