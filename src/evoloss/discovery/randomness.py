"""Random streams that depend on what they are for, and not on who drew before.

Every stream is a `numpy.random.SeedSequence` child keyed by purpose and position (generation,
candidate, repetition), so results do not depend on order, worker count or a restart.
"""

from enum import IntEnum

import numpy as np

from evoloss.errors import UserError


class Purpose(IntEnum):
    """What a stream is drawn for. The numbers are part of every stored run: never renumber."""

    PROPOSAL = 0  # selection and variation of candidates
    INITIAL_WEIGHTS = 1  # of the base network
    TUNING_BATCHES = 2  # minibatches and episodes of the local search
    FITNESS_BATCHES = 3  # minibatches and episodes of a fitness training
    REJECTION = 4  # predictions that the rejection test minimises over
    FINALISTS = 5  # the repeated scoring of the best at the end of a search
    EVALUATION = 6  # meta-testing
    LOCAL_SEARCH = 9  # what a step of local search draws besides its batches


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """The generator for a purpose at a position: always the same for the same arguments.

    key: where in the run it is used, such as generation and index; each below 2³².
    """
    return np.random.default_rng(_sequence(seed, purpose, key))


def torch_seed(seed: int, purpose: Purpose, *key: int) -> int:
    """A 63-bit seed for `torch.Generator.manual_seed`, with the meaning of `stream`."""
    return int(_sequence(seed, purpose, key).generate_state(1, np.uint64)[0] >> 1)


def _sequence(seed: int, purpose: Purpose, key: tuple[int, ...]) -> np.random.SeedSequence:
    if seed < 0:
        raise UserError(f"seed {seed} is negative: use 0 or a positive number")
    return np.random.SeedSequence(entropy=seed, spawn_key=(int(purpose), *key))
