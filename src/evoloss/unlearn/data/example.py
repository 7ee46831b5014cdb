"""The records of an unlearning task: questions with answers, running texts, multiple choice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar


class Record(Protocol):
    """A row of a set: where it stood, and what must be different from every row elsewhere."""

    @property
    def row(self) -> int: ...

    @property
    def keys(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Example:
    """A prompt with the answer that a model knows, or should forget.

    paraphrased_prompt, paraphrased_answer: the same said differently; perturbed: false answers of
    the paraphrase's form (TOFU).
    continues: the answer goes on from the prompt as running text, outside of any chat; a plain
    text is an answer to an empty prompt.
    row: its line or place in the file, counted from 1.
    """

    prompt: str
    answer: str
    paraphrased_prompt: str | None = None
    paraphrased_answer: str | None = None
    perturbed: tuple[str, ...] = ()
    continues: bool = False
    row: int = field(default=0, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The normalised question and its paraphrase; the whole text if nothing is asked."""
        if self.continues:
            return (normalised(f"{self.prompt} {self.answer}"),)
        questions = (self.prompt, self.paraphrased_prompt)
        return tuple(dict.fromkeys(normalised(each) for each in questions if each is not None))

    def answered(self, answer: str) -> Example:
        """The same prompt with another answer: a paraphrased or a perturbed one."""
        return replace(self, answer=answer)


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question. answer: the index of the right choice, from 0."""

    question: str
    choices: tuple[str, ...]
    answer: int
    row: int = field(default=0, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """Question and choices: the same few words may ask for different things."""
        return (" | ".join(map(normalised, (self.question, *sorted(self.choices)))),)


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class DataSet(Generic[R]):
    """Rows of one file or split. notes: what was done to them on reading, to be told."""

    name: str
    rows: tuple[R, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)


@dataclass(frozen=True)
class UnlearningData:
    """What is to be forgotten, what is to be kept, and what else is asked to see that it worked.

    retain: None in the mode without a retain set. holdout: never seen by any model, for membership
    inference. probes, choices: sets that are only evaluated, by name.
    """

    name: str
    forget: DataSet[Example]
    retain: DataSet[Example] | None = None
    holdout: DataSet[Example] | None = None
    probes: Mapping[str, DataSet[Example]] = field(default_factory=dict)
    choices: Mapping[str, DataSet[Choice]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all its sets."""
        sets = (self.forget, self.retain, self.holdout, *self.probes.values())
        found = [note for each in sets if each is not None for note in each.notes]
        return (*found, *(note for each in self.choices.values() for note in each.notes))


def normalised(text: str) -> str:
    """A text without case, punctuation and spacing, in which two ways of typing it are equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()
