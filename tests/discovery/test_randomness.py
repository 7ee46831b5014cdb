"""Random streams: a function of their arguments alone, and all different."""

import itertools

import pytest
import torch

from evoloss.discovery.randomness import Purpose, stream, torch_seed
from evoloss.errors import UserError

PLACES = [
    (seed, purpose, *key)
    for seed in (0, 1, 2**40)
    for purpose in Purpose
    for key in [(), *itertools.product(range(3), repeat=1), *itertools.product(range(3), repeat=2)]
]


def draw(place):
    return stream(*place).integers(2**63)


def test_a_stream_does_not_depend_on_which_were_drawn_before():
    forwards = {place: draw(place) for place in PLACES}
    backwards = {place: draw(place) for place in reversed(PLACES)}
    assert forwards == backwards


def test_streams_and_seeds_of_different_places_differ():
    assert len({draw(place) for place in PLACES}) == len(PLACES)
    assert len({torch_seed(*place) for place in PLACES}) == len(PLACES)


def test_a_stored_run_finds_its_streams_again_in_later_versions():
    assert [purpose.name for purpose in Purpose][:3] == [
        "PROPOSAL",
        "INITIAL_WEIGHTS",
        "TUNING_BATCHES",
    ]
    assert stream(0, Purpose.REJECTION, 3, 7).integers(1000, size=4).tolist() == [
        423,
        602,
        499,
        761,
    ]


def test_torch_seeds_fit_torch():
    for place in PLACES[:20]:
        seed = torch_seed(*place)
        assert torch.Generator().manual_seed(seed).initial_seed() == seed


def test_a_negative_seed_is_the_users_mistake():
    with pytest.raises(UserError, match="seed -3 is negative"):
        stream(-3, Purpose.PROPOSAL)
