"""A tiny language model and sets of sequences to train it on."""

import pytest
import torch

from evoloss.unlearn.log_probs import Sequences, reference
from evoloss.unlearn.objective import Part, Sets

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def small_model(spread=0.02):
    """spread: of the initial weights."""
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        initializer_range=spread,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def sequences(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 40, (rows, 12), generator=generator)
    lengths = torch.randint(7, 13, (rows,), generator=generator)
    place = torch.arange(12)
    attention = (place < lengths[:, None]).long()
    answer = ((place >= 4) & (place < lengths[:, None])).float()
    return Sequences(tokens * attention, attention, answer)


def sets(model, retain=True):
    parts = [Part(each, reference(model, each)) for each in (sequences(1, 7), sequences(2, 8))]
    return Sets(parts[0], parts[1] if retain else None)
