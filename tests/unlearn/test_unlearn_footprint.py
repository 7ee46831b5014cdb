"""How much memory trainings take, and how a machine is shared by it."""

import subprocess
import sys

import pytest

from evoloss.unlearn.adapters import LoraSettings
from evoloss.unlearn.footprint import PROCESS, Footprint, footprint
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import SHARE, SMALL, Sharing, on_processors

pytest.importorskip("transformers", reason="transformers is not installed")

GIB = 2**30
LARGE = 2 * SMALL

STEPS = """
import ctypes, sys
import torch
import transformers
from evoloss.unlearn.adapters import LoraSettings, attached
from evoloss.unlearn.footprint import footprint
from evoloss.unlearn.log_probs import Sequences, rows_at_once, token_log_probs
from evoloss.unlearn.objective import Part, Sets

adapters, rows = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=3000, hidden_size=256, intermediate_size=512, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2,
))

def part(width):
    tokens = torch.randint(3000, (12, width))
    answer = (torch.arange(width) >= width // 2).float().expand_as(tokens)
    return Part(Sequences(tokens, torch.ones_like(tokens), answer), torch.zeros(tokens.shape))

sets = Sets(part(48), part(64))
needed = footprint(model, sets, LoraSettings(), 12)

def held(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def step(parts, copies):
    with attached(model, copies, LoraSettings()) as made:
        found = [token_log_probs(model, each.data, copies) for each in parts]
        torch.autograd.grad(sum(each.sum() for each in found), made.parameters)

step([sets.forget.rows([0])], 1)  # what libraries set up once
ctypes.CDLL("libc.so.6").malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = held("VmRSS")
with rows_at_once(rows or None):
    step((sets.forget, sets.retain), adapters)
    step((sets.forget, sets.retain), adapters)
print((held("VmHWM") - before) / ((needed.row * rows) if rows else needed.adapter * adapters))
"""


@pytest.mark.parametrize(
    ("adapters", "rows"), [(1, 0), pytest.param(3, 0, marks=pytest.mark.slow), (1, 6)]
)
def test_the_estimate_is_what_steps_take_and_some_more(adapters, rows):
    """Of the process's own memory, as Linux counts it."""
    command = [sys.executable, "-c", STEPS, str(adapters), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.4 < float(done.stdout) < 1.0


def test_a_longer_row_and_a_larger_batch_take_more(memory_of):
    one, two = memory_of(batch=1), memory_of(batch=2)
    assert two.row == one.row > 0
    assert two.adapter == pytest.approx(2 * one.adapter)
    assert memory_of(batch=1, retain=False).adapter < 0.7 * one.adapter


@pytest.fixture(scope="module")
def memory_of():
    from tiny_llama import sets, small_model

    model = small_model()

    def estimate(batch, retain=True):
        return footprint(model, sets(model, retain), LoraSettings(2), batch)

    return estimate


# A model of so many bytes, of which an adapter's step takes 1 GiB in 16 rows


def needing(weights, adapter=GIB):
    return Footprint(weights, adapter, adapter / 16)


def shared(footprint, cores, gibibytes, **settings):
    return on_processors(footprint, UnlearnSettings(**settings), cores, gibibytes * GIB / SHARE)


@pytest.mark.parametrize(
    ("cores", "weights", "wanted"),
    [
        (1, SMALL, Sharing(2, 1)),
        (2, SMALL, Sharing(2, 1, workers=2)),
        (16, SMALL, Sharing(2, 1, workers=4)),  # a generation of 8 is four shards
        (1, LARGE, Sharing(2, 1)),
        (2, LARGE, Sharing(2, 1, workers=2)),
        (16, LARGE, Sharing(2, 4, workers=4)),
    ],
)
def test_each_core_has_a_worker_or_each_worker_its_cores(cores, weights, wanted):
    assert shared(needing(weights), cores, 1000) == wanted


@pytest.mark.parametrize(
    ("gibibytes", "wanted"),
    [
        # Each process has the model: 2 GiB. A worker's shard takes 2 more.
        (14.1, Sharing(2, 1, workers=3)),
        (13.9, Sharing(2, 2, workers=2)),
        (9.9, Sharing(2, 4)),
        (3.9, Sharing(1, 4)),
        (2.9, Sharing(1, 4, trained=14)),
        (2.01, Sharing(1, 4, trained=1)),
        (1.0, Sharing(1, 4, trained=1)),  # which may not do: it is an estimate
    ],
)
def test_what_does_not_fit_is_done_in_turn(gibibytes, wanted):
    assert shared(needing(2 * GIB - PROCESS), 4, gibibytes) == wanted


def test_who_says_how_many_are_side_by_side_is_believed():
    assert shared(needing(LARGE), 4, 2, together=2) == Sharing(2, 4)
    assert shared(needing(LARGE), 4, 2, together=1) == Sharing(1, 4)
    assert shared(needing(LARGE), 4, 1000, together=9, shard=3) == Sharing(3, 1, workers=4)
