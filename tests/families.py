"""Tiny models of several architectures, untrained."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

_LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "max_position_embeddings": 64}  # fmt: skip
_BLOOM = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {
    "Llama": _LLAMA | {"tie_word_embeddings": True},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "GPTNeoX": _LLAMA,
    "OPT": _BLOOM | {"ffn_dim": 24, "max_position_embeddings": 64, "word_embed_proj_dim": 8},
    "Phi3": _LLAMA,
    "Falcon": _BLOOM,
    "Bloom": _BLOOM,
    "Mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
}


def model_of(family, vocabulary=40, **changes):
    """The same weights with each call."""
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocabulary, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        **FAMILIES[family] | changes,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()
