"""What fits into memory, and what is done where it does not."""

import pytest
import torch
from torch import nn

from evoloss.engine.memory import bytes_per_copy, fitting, gpu_is_short, in_parts, kept_by
from evoloss.errors import UserError


def test_what_a_pass_keeps_is_counted_once_and_without_weights_and_inputs():
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.ones(7, 3)
    # tanh keeps its output, which the second layer keeps too; then there is the network's output.
    own = (*module.parameters(), x)
    assert kept_by(lambda: module(x), own) == 4 * (7 * 5 + 7 * 2)


def test_a_copy_takes_its_states_and_its_passes():
    module, x = nn.Linear(3, 2, bias=False), torch.ones(7, 3)
    one, more = bytes_per_copy(module, x, 1, 1), bytes_per_copy(module, x, 3, 4)
    assert one == 6 * 24 + 3 * 4 * 14
    assert more == 3 * one + 2 * 4 * 24


def test_how_many_fit():
    assert fitting(None, 10, 25) == 25
    assert fitting(100.0, 10, 25) == 10
    assert fitting(1000.0, 10, 25) == 25
    with pytest.raises(UserError, match="one network takes about"):
        fitting(9.0, 10, 25)


class Gpu:
    """Has room for so many; keeps what it was asked for."""

    def __init__(self, room):
        self.room = room
        self.asked = []

    def work(self, part):
        self.asked.append(len(part))
        if len(part) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [-each for each in part]


def test_halves_until_it_fits_and_stays_there():
    gpu, told = Gpu(3), []
    found = in_parts(list(range(10)), 10, gpu.work, gpu_is_short, told.append)
    assert found == [-each for each in range(10)]
    assert gpu.asked == [10, 5, 2, 2, 2, 2, 2]
    assert told == [5, 2]


def test_one_alone_is_made_smaller_as_long_as_it_can_be():
    gpu, told, rows = Gpu(0), [], [4]

    def smaller():
        rows[0] //= 2
        gpu.room = rows[0] == 1
        return rows[0] > 0

    found = in_parts([1, 2], 2, gpu.work, gpu_is_short, told.append, smaller)
    assert found == [-1, -2]
    assert (gpu.asked, told, rows) == ([2, 1, 1, 1, 1], [1], [1])
    with pytest.raises(torch.OutOfMemoryError):
        in_parts([1], 1, Gpu(0).work, gpu_is_short, told.append, smaller)


def test_no_room_for_one_and_other_errors_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        in_parts([1, 2], 2, Gpu(0).work, gpu_is_short, lambda count: None)

    def broken(part):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_parts([1, 2], 2, broken, gpu_is_short, lambda count: None)
