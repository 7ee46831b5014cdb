"""Prints how much faster evoloss scores unlearning losses than the procedure of EvoMU's code.

`python benchmarks/unlearn_speed.py [--losses 16] [--seed 0] [--threads N]`, on the demonstration's
small model: generations of a search, each scored by evoloss, with racing and without, and by
`unlearn_baseline.py`, in turns so that all see the same load. What is done once for a whole search
(loading the model for evoloss, the reference log-probabilities for both) is not counted.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

# isort: off
import evoloss  # noqa: F401  before torch: says how its threads wait, for both sides alike

# isort: on
import torch
import unlearn_baseline as baseline

from evoloss.discovery.archive import Archive
from evoloss.discovery.arena import Outcome
from evoloss.discovery.candidate import Candidate
from evoloss.discovery.loop import known_to_proposers
from evoloss.lang.export.batch_source import batch_source
from evoloss.propose.proposer import Individual
from evoloss.unlearn.arena import Unlearning
from evoloss.unlearn.bench import Bench
from evoloss.unlearn.demo import SETTINGS, demonstration
from evoloss.unlearn.language import quiet
from evoloss.unlearn.objective import Part, signature_of
from evoloss.unlearn.phase import Phase
from evoloss.unlearn.prepared import Asked
from evoloss.unlearn.settings import unlearn_settings
from evoloss.unlearn.tokens import Encoded

Row = tuple[list[int], int, bool]


class Clock:
    """Adds up wall seconds, and CPU seconds of this process and its children, by what they are for.

    CPU seconds hardly depend on what else the machine does.
    """

    def __init__(self) -> None:
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()

    @contextmanager
    def __call__(self, what: str):
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        yield
        self.wall[what] += time.perf_counter() - wall
        self.cpu[what] += sum(os.times()[:4]) - cpu


def job_of(bench: Bench, phase: Phase, questions: Path) -> baseline.Job:
    """The bench's problem for the baseline; writes the file of questions."""
    questions.write_text(json.dumps(asked(phase)), encoding="utf-8")
    lora = bench.settings.lora
    return baseline.Job(
        Path(bench.problem.model), _part(phase.sets.forget), _part(phase.sets.retain),
        bench.start.weights, questions, lora.rank, lora.alpha, bench.settings.clip,
    )  # fmt: skip


def asked(phase: Phase) -> dict:
    """All that is measured, as `unlearn_baseline.measured` takes it."""
    prepared, retain = phase.prepared, phase.retain
    return {
        "sets": {name: _set(prepared.sets[name]) for name in ("forget", "retain")},
        "members": [_row(each) for each in prepared.members],
        "strangers": [_row(each) for each in prepared.strangers],
        "original": phase.original.values,
        "retain": {
            **retain.values, "log_ratios": retain.forget_log_ratios, "members": retain.members,
            "strangers": retain.strangers,
        },
    }  # fmt: skip


def _set(asked: Asked) -> dict:
    return {
        "answers": [_row(each) for each in asked.answers],
        "compared": [(_row(c.true), [_row(each) for each in c.false]) for c in asked.compared],
        "openings": [
            {"ids": list(each.ids), "limit": each.limit, "truth": each.truth}
            for each in asked.openings
        ],
    }


def _row(row: Encoded) -> Row:
    return list(row.ids), row.start, row.ends


def _part(part: Part) -> baseline.Part:
    data = part.data
    return baseline.Part(data.tokens, data.attention, data.answer, part.reference)


def plain(arena: Unlearning, job: baseline.Job, candidate: Candidate) -> baseline.Outcome:
    """A candidate by the baseline: the same loss, minibatches, epochs and rate."""
    bench, loss = arena.bench, candidate.loss
    epochs = candidate.epochs or bench.settings.epochs
    trials = arena.trials(bench.searching, [loss], [epochs])
    objective = trials.here().objective
    order = objective.forget, objective.retain
    source = batch_source(loss, signature_of(loss, True))
    return baseline.evaluate_candidate(source, job, order, candidate.rate * bench.settings.lr)


def generations(arena: Unlearning, count: int, score: Callable[[Sequence[Candidate]], list]):
    """So many candidates of a search, a generation at a time; score: tells how they fared."""
    archive = Archive(arena.settings, arena.fingerprint)
    proposer = arena.proposer(arena.space(known_to_proposers(arena.settings, archive)))
    for number in range(-(-count // arena.settings.population)):
        asked = proposer.ask(number)
        first = len(archive.history)
        made = [
            Candidate(first + at, number, at, each.operator, each.parents, each.expression,
                      archive.form(each.expression, each.epochs, each.rate), epochs=each.epochs,
                      rate=each.rate)
            for at, each in enumerate(asked)
        ]  # fmt: skip
        found: list[Outcome] = score(made)
        done = [replace(c, fate=o.fate, error=o.error) for c, o in zip(made, found, strict=True)]
        archive.extend(done)
        proposer.tell(number, [
            Individual(c.id, c.expression, c.error, c.epochs, c.operator, c.parents, rate=c.rate)
            for c in done
        ])  # fmt: skip
        yield made


def best_threads(run: Callable[[], object]) -> int:
    """The number of torch threads with which something is faster, on one or on all, of two runs."""
    every = torch.get_num_threads()
    seconds: list[tuple[float, int]] = []
    for threads in (1, every) * 2:
        torch.set_num_threads(threads)
        begun = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - begun, threads))
    torch.set_num_threads(every)
    return min(seconds)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the baseline; tried out if not given")
    arguments = parser.parse_args()
    # peft asks transformers for a name that it has since renamed.
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
    settings = unlearn_settings(**SETTINGS, seed=arguments.seed)
    bench = Bench(demonstration(arguments.seed), settings)
    arena = Unlearning(bench)
    bench.sharing = arena.sharing()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        job = job_of(bench, bench.searching, Path(folder) / "questions.json")
        compare(arena, job, arguments.losses, arguments.threads)


def compare(arena: Unlearning, job: baseline.Job, losses: int, threads: int | None) -> None:
    bench, clock = arena.bench, Clock()
    usual = Candidate(0, 0, 0, "usual loss", (), arena.usual, "")
    plain(arena, job, usual)  # the first calls are slow
    every = torch.get_num_threads()
    threads = threads or best_threads(lambda: plain(arena, job, usual))
    stages: Counter[str] = Counter()
    apart: list[float] = []

    def raced(candidates: Sequence[Candidate]) -> list[Outcome]:
        with arena.threads(), clock("racing"):
            return arena.score(candidates, True, lambda share: None)

    count = 0
    for made in generations(arena, losses, raced):
        count += len(made)
        with arena.threads(), clock("no racing"):
            whole = arena.score(made, False, lambda share: None)
        torch.set_num_threads(threads)
        for candidate, ours in zip(made, whole, strict=True):
            with clock("plain"):
                theirs = plain(arena, job, candidate)
            stages.update(theirs.seconds)
            if ours.error is not None and theirs.values is not None:
                apart.append(abs(theirs.values[bench.settings.objective] + ours.error))
        torch.set_num_threads(every)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"{count} losses; evoloss: {bench.sharing.together} side by side, torch threads: "
        f"{bench.sharing.threads}; plain procedure: torch threads: {threads}; load average {load}"
    )
    report(clock, count)
    for name, seconds in stages.items():
        print(f"  {name:15}{seconds / count:7.2f} s of the plain procedure's candidate")
    print(f"scores of the two differ by {max(apart):.4f} at most, in {len(apart)} losses")


def report(clock: Clock, count: int) -> None:
    """Prints a row for each way."""
    print(f"{'':12}{'s/candidate':>12}{'CPU s':>8}{'an hour':>9}{'ratio':>8}{'in CPU s':>10}")
    for way in ("plain", "no racing", "racing"):
        wall, cpu = clock.wall[way] / count, clock.cpu[way] / count
        print(
            f"{way:12}{wall:12.2f}{cpu:8.2f}{3600 / wall:9.0f}"
            f"{clock.wall['plain'] / clock.wall[way]:8.1f}"
            f"{clock.cpu['plain'] / clock.cpu[way]:10.1f}"
        )


if __name__ == "__main__":
    main()
