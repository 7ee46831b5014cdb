"""ROUGE-L between generated and true answers (Lin 2004), by the rouge-score package.

As OpenUnlearning does: with Porter's stemmer; recall for TOFU, F1 for MUSE. That package counts
words of Latin letters and digits only, so that an answer in another script would score 0 and look
forgotten: such answers are compared by their words in any script instead, and by characters where
a script writes no spaces between words. Latin words in them are the package's all the same: one
letter such as µ changes nothing about the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from evoloss.errors import UserError
from evoloss.unlearn.metrics.rows import same_count
from evoloss.unlearn.metrics.table import Array, MetricError

_SPACELESS = "CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"


def rouge_l_recall(generated: Sequence[str], true: Sequence[str]) -> Array:
    """(N,) length of the longest common subsequence of words over that of the true answer."""
    return np.array([each.recall for each in _scores("rouge_l_recall", generated, true)])


def rouge_l_f1(generated: Sequence[str], true: Sequence[str]) -> Array:
    """(N,) harmonic mean of that recall and the share in the generated answer."""
    return np.array([each.fmeasure for each in _scores("rouge_l_f1", generated, true)])


def _scores(name: str, generated: Sequence[str], true: Sequence[str]) -> list[Any]:
    same_count(name, generated=generated, true=true)
    if not len(true):
        raise MetricError(f"metric '{name}' has no answers to measure")
    pairs = zip(generated, true, strict=True)
    return [_score(name, number, *pair) for number, pair in enumerate(pairs)]


def _score(name: str, number: int, generated: str, true: str) -> Any:
    if not isinstance(generated, str) or not isinstance(true, str):
        raise MetricError(f"metric '{name}': the text of answer {number} is missing")
    if not any(character.isalnum() for character in true):
        raise MetricError(f"metric '{name}': the true answer {number} {true[:40]!r} has no words")
    return _scorer(any(map(_foreign, true))).score(true, generated)["rougeL"]


@cache
def _scorer(any_script: bool) -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise UserError(
            "ROUGE needs the rouge-score package: pip install 'evoloss[unlearn]'"
        ) from error
    tokenizer = AnyScript() if any_script else None
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True, tokenizer=tokenizer)


class AnyScript:
    """Splits a text of any script, as rouge-score wants its tokenizers."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._latin = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case, Latin ones stemmed; single characters of scripts without spaces."""
        spaced = "".join(f" {c} " if _written_without_spaces(c) else c for c in text)
        return [part for word in re.findall(r"\w+", spaced) for part in self._parts(word)]

    def _parts(self, word: str) -> list[str]:
        if any(map(_foreign, word)):
            return re.findall(r"\w+", word.casefold())
        found: list[str] = self._latin.tokenize(word)
        return found


def _foreign(character: str) -> bool:
    """Whether it is a letter or digit that rouge-score knows nothing of: it drops accents too."""
    if character.isdecimal():
        return not character.isascii()
    return character.isalpha() and not unicodedata.name(character, "").startswith("LATIN")


def _written_without_spaces(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_SPACELESS)
