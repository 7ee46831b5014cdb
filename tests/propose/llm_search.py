"""A search whose losses a language model writes and that trains nothing: `RUN URL` to run it."""

import sys
from pathlib import Path

import numpy as np

from evoloss.discovery.arena import Outcome
from evoloss.discovery.candidate import Fate
from evoloss.discovery.loop import Run
from evoloss.lang.evaluate import numpy_value
from evoloss.lang.fingerprint import batch_direction_fingerprint
from evoloss.lang.probes import probe_batches
from evoloss.lang.types import UNLEARNING
from evoloss.lang.zoo import loss
from evoloss.propose.llm import Endpoint, LLMProposer, usage_of
from evoloss.propose.proposer import Space
from evoloss.store import Store
from toy_search import toy


class Written(toy.Toy):
    """The error of a loss is its value on the probe points, so every loss has one of its own."""

    def __init__(self, settings, url, records):
        super().__init__(settings)
        self.endpoint = Endpoint(url, "tiny", retries=0, samples_at_once=2)
        self.records = records

    def space(self, common):
        return Space(usual=loss("grad-diff"), output="identity", signature=UNLEARNING,
                     most_epochs=8, **common)  # fmt: skip

    def proposer(self, space):
        return LLMProposer(space, self.endpoint, print, spent=usage_of(self.records))

    def fingerprint(self, loss):
        return batch_direction_fingerprint(loss, UNLEARNING)

    def _outcome(self, candidate):
        values = [numpy_value(candidate.loss, batch) for batch in probe_batches(UNLEARNING)]
        return Outcome(Fate.SCORED, float(np.mean(values)), 1)


def searched(directory, url, **settings):
    """The result of a new run, or of one that goes on."""
    if (directory / "run.db").exists():
        store = Store.open(directory, write=True)
    else:
        chosen = toy.ToySettings(population=10, generations=2, **settings)
        store = Store.create(directory, task=None, settings=chosen.to_json(), about={})
    chosen = toy.ToySettings.from_json(store.settings)
    return Run(Written(chosen, url, store.records()), store, None).go()


if __name__ == "__main__":
    searched(Path(sys.argv[1]), sys.argv[2])
