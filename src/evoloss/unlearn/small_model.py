"""A small Llama and its tokenizer, trained on the spot until it knows some facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evoloss.errors import UserError
from evoloss.unlearn import kept
from evoloss.unlearn.data.example import DataSet, Example
from evoloss.unlearn.language import quiet
from evoloss.unlearn.log_probs import Sequences, mean_log_probs
from evoloss.unlearn.tokens import Encoder, padded

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 256
_KNOWN = 0.97
"""A model knows its facts when the mean probability of an answer is above this."""
_TEACHING = 2
"""Raised whenever teaching comes out differently, be it in the last bits: see `taught`."""
_MOST_PASSES = 200
_BATCH = 32


def tokenizer_of(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that knows every word of the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(list(texts), trainers.WordLevelTrainer(special_tokens=special))
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    )  # fmt: skip
    return made


def small_llama(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """An untrained Llama of about 1.2 million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def teach(
    model: LlamaForCausalLM, data: Sequences, seed: int, tick: Callable[[float], None]
) -> float:
    """Trains all weights until the answers are known; returns their mean probability.

    tick: told the mean probability of each pass. Raises UserError if they are not known in time.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    known = 0.0
    for _ in range(_MOST_PASSES):
        found = []
        for rows in torch.randperm(len(data), generator=generator).split(_BATCH):
            log_probs = mean_log_probs(model, data.rows(rows))[0]
            optimiser.zero_grad()
            (-log_probs.mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            found.append(log_probs.detach().exp())
        known = float(torch.cat(found).mean())
        tick(known)
        if known > _KNOWN:
            model.train(False)
            return known
    raise UserError(f"the small model knows its facts with probability {known:.2f} only")


def taught(
    name: str,
    learnt: Sequence[DataSet[Example]],
    texts: Iterable[str],
    seed: int,
    tick: Callable[[float], None] = lambda known: None,
) -> Path:
    """The directory of a model that knows the sets, made once and then kept in the cache.

    texts: all that its tokenizer has to know, so that twins share one. What an earlier version of
    the teaching made is not taken: a search on it would be another than on a new machine.
    """
    words = list(texts)
    rows = [(each.prompt, each.answer) for data in learnt for each in data]
    key: list[Any] = [name, seed, rows, words, torch.__version__, _KNOWN, _TEACHING]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]

    def write(folder: Path) -> None:
        tokenizer = tokenizer_of(words)
        model = small_llama(len(tokenizer), seed)
        encoder = Encoder(tokenizer)
        encoded = [row for data in learnt for row in encoder.encode_set(data, CONTEXT).rows]
        teach(model, padded(encoded, encoder.pad), seed, tick)
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return kept.folder(f"{name}-{digest}", write)
