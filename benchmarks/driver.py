"""Prints what a candidate costs the driver, and from there what a thousand processors would do.

`python benchmarks/driver.py [--population 400] [--processors 1000] [--candidates 1000000]`

Everything but tests, tunings and trainings is done by one process, one candidate after the other.
That is measured on a toy search (`toy.py`), in processor time. To workers go texts, and at the
rungs of a race the weights and velocities of each training, back and there again. The model: while
the driver works, all processors wait; while they work, the driver waits. It knows nothing of rungs
that wait for the slowest. With `--ray`, what it takes to hand over a shard on which there is
nothing to do, to one worker of a pool and to one of Ray's processes.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing import Pipe
from pathlib import Path
from statistics import median

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait

# isort: on
import numpy as np
from curves import Seconds, timed
from torch import nn
from toy import Toy, ToySettings

from evoloss.discovery.loop import Run
from evoloss.discovery.race import RUNGS
from evoloss.execution import wire
from evoloss.execution.crew import Crew
from evoloss.execution.executor import Recipe
from evoloss.execution.pool import Pool
from evoloss.lang.export.json_form import to_json
from evoloss.lang.fingerprint import gradient_fingerprint
from evoloss.store import Store
from evoloss.tasks.image_networks import lenet5, resnet18
from evoloss.tasks.networks import dense

GENERATIONS = 3
ROUNDS = 5
ABOUT = {"task": "toy", "network": "none", "metric": "distance", "output": "identity",
         "higher_is_better": False}  # fmt: skip
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp:64,64": lambda: dense((64,), (64, 64), 10),
    "lenet5": lambda: lenet5((1, 28, 28), 10),
    "resnet18": lambda: resnet18(3, 10),
}
MESSAGE = 2**22
"""Numbers of 4 bytes."""
HANDED = 400
"""Shards that are handed over, one after the other or as Ray takes them."""
IDLE = 0.1
"""The share of the processors' time that may be lost."""


def costs(population: int, folder: Path) -> dict[str, float]:
    """Seconds of the driver for one candidate, by what it does."""
    arena = Toy(ToySettings(population=population, generations=GENERATIONS))
    settings = arena.settings.to_json()
    run = Run(arena, Store.create(folder / "run", task=None, settings=settings, about=ABOUT), None)
    run.go()
    with Store.open(folder / "run", write=False) as store:
        last = store.candidates(GENERATIONS - 1)
        summaries = store.summaries()[-len(last) :]
    losses = [each.expression for each in last]
    numbers = count()

    def saved() -> None:
        directory = folder / f"saved-{next(numbers)}"
        with Store.create(directory, task=None, settings=settings, about=ABOUT) as store:
            store.commit(0, last, {}, (), summaries)

    every: dict[str, Callable[[], object]] = {
        "proposal, canonical form": lambda: run.proposer.ask(GENERATIONS),
        "fingerprint": lambda: [gradient_fingerprint(each, "identity") for each in losses],
        "text for workers": lambda: [to_json(each) for each in losses],
        "store": saved,
    }
    return {name: _seconds(work) / len(last) for name, work in every.items()}


def _seconds(work: Callable[[], object]) -> float:
    """Of processor time, the median; the first time, modules are imported and caches filled."""
    work()
    return median(timed(work).processor for _ in range(ROUNDS))


def carried() -> float:
    """Seconds of processor time for a byte that goes from one process to another and is read."""
    one, other = Pipe()
    numbers = np.zeros(MESSAGE, np.float32)

    def there() -> None:
        sender = threading.Thread(target=wire.send, args=(one, numbers))
        sender.start()
        wire.receive(other)
        sender.join()

    return _seconds(there) / numbers.nbytes


def sent(weights: int) -> int:
    """Bytes for a candidate of so many weights: state back and there again at every rung."""
    state, running, total = 2 * 4 * weights, 1.0, 0.0
    for _ in RUNGS:
        total += state * running  # from all that ran
        running /= 2
        total += state * running  # to all that go on
    return round(total)


class Idle:
    """A workplace where nothing is done."""

    def __init__(self, data: object = None) -> None:
        pass

    def do(self, call: str, items: Sequence[object], common: object, tick: object) -> list[float]:
        """An answer for each."""
        return [0.0 for _ in items]


def handed_over(crew: Crew, shards: int) -> Seconds:
    """The driver's seconds for so many shards with nothing to do, once all workers have started."""

    def work() -> None:
        crew.run("rest", [{}] * shards, {}, lambda share: None)

    try:
        work()
        return min((timed(work) for _ in range(ROUNDS)), key=lambda each: each.wall)
    finally:
        crew.close()


def model(own: float, a_byte: float, processors: int, candidates: int) -> None:
    """Prints what so many processors would come to."""
    print(
        f"{candidates:,} candidates: {own * candidates / 60:.0f} minutes of the driver alone; "
        f"{processors:,} processors lose {IDLE:.0%} where a candidate takes "
        f"{(1 / IDLE - 1) * own * processors:.1f} s"
    )
    for name, make in NETWORKS.items():
        size = sum(each.numel() for each in make().parameters())
        there = sent(size)
        more = own + there * a_byte
        print(
            f"  {name}, {size:,} weights, raced: {there / 1e6:.2f} MB and {1e3 * more:.1f} ms a "
            f"candidate; {IDLE:.0%} are lost at {(1 / IDLE - 1) * more * processors:,.0f} s; "
            f"{there * candidates / 1e12:.1f} TB in all; states of {4 * processors:,} candidates "
            f"{8 * size * 4 * processors / 2**30:,.1f} GiB"
        )


def print_handed_over() -> None:
    """Milliseconds a shard, to a worker of a pool and to Ray."""
    from evoloss.execution.ray_cluster import LOCAL, RayCluster

    # Workers import the recipe's maker by the name of this file.
    recipe = Recipe(f"{Path(__file__).stem}:{Idle.__name__}", {})
    sys.path.insert(0, str(Path(__file__).parent))
    makers: dict[str, Callable[[], Crew]] = {
        "a worker": lambda: Pool(recipe, 1, 1),
        "Ray": lambda: RayCluster(recipe, LOCAL, 1),
    }
    for name, make in makers.items():
        found = handed_over(make(), HANDED)
        processor, wall = (1e3 * each / HANDED for each in (found.processor, found.wall))
        print(f"{name:10} {processor:.2f} ms of the driver a shard, {wall:.2f} ms on the wall")
    print("load average " + " ".join(f"{each:.1f}" for each in os.getloadavg()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--population", type=int, default=400)
    parser.add_argument("--processors", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=10**6)
    parser.add_argument("--ray", action="store_true", help="time how shards are handed over")
    arguments = parser.parse_args()
    if arguments.ray:
        print_handed_over()
        return
    with tempfile.TemporaryDirectory() as folder:
        found = costs(arguments.population, Path(folder))
    for name, seconds in found.items():
        print(f"{name:28} {1e3 * seconds:8.3f} ms a candidate")
    # A new loss has two fingerprints, untuned and tuned, and is sent four times or so.
    own = sum(found.values()) + found["fingerprint"] + 3 * found["text for workers"]
    a_byte = carried()
    print(f"{'together':28} {1e3 * own:8.3f} ms; {1e-6 / a_byte:,.0f} MB a second to workers")
    model(own, a_byte, arguments.processors, arguments.candidates)
    print("load average " + " ".join(f"{each:.1f}" for each in os.getloadavg()))


if __name__ == "__main__":
    main()
