"""A tiny language model with sets of sequences, and losses with constants, for two test modules."""

import pytest
import torch

from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_FORGET, UNLEARNING_TOKENS
from evoloss.unlearn.adapters import LoraSettings
from evoloss.unlearn.log_probs import Sequences, reference
from evoloss.unlearn.objective import Part, Sets

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LORA = LoraSettings(rank=2, alpha=8.0)
LR, CLIP, STEPS, FLOOR = 3e-2, 0.05, 6, 0.3


def small_model():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        initializer_range=0.3,
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


def signature(text, retain=True):
    if not retain:
        return UNLEARNING_FORGET
    return UNLEARNING_TOKENS if "mask" in text else UNLEARNING


def losses_of(*texts, retain=True):
    return [parse(each, signature(each, retain)) for each in texts]


FORGET, RETAIN = (f"select(mask_{each}, log_probs_{each})" for each in ("forget", "retain"))
RISE = "(log_probs_forget - ref_log_probs_forget)"
NPO = f"-20*mean(logsigmoid(-0.1*{RISE})) - 0.7*mean(log_probs_retain)"
WGA = f"mean(detach(exp(0.5*{FORGET}))*{FORGET}) - 0.3*mean({RETAIN})"
SQUARES = (
    "mean(log_probs_forget) + 2*mean(square(log_probs_retain - 1.1*ref_log_probs_retain))"
    " + 0.4*norm(log_probs_retain)"
)
ALONE = f"mean(softplus(0.3*{RISE})) + 0.2*mean(exp(0.5*log_probs_forget))"
