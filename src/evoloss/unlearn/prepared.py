"""The data of a measurement as tokens, made once for all the models that are measured on it.

Multiple-choice questions are put as WMDP does (Li et al. 2024): the choices under letters, and the
letter is the answer. Texts that nobody asks for are continued from their beginning, as in MUSE's
VerbMem (Shi et al. 2024).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evoloss.errors import UserError
from evoloss.unlearn.data.divide import evenly
from evoloss.unlearn.data.example import Choice, DataSet, Example, UnlearningData
from evoloss.unlearn.data.examples import some_rows
from evoloss.unlearn.tokens import Encoded, Encoder, Ids
from evoloss.wording import counted

VERBATIM = 128
"""Most tokens of a text's beginning and of its continuation, in VerbMem."""
_NEW_TOKENS = {"forget_verbmem": VERBATIM, "forget_knowmem": 32, "retain_knowmem": 32}
# TOFU's generation stops after 200 tokens. A model that never ends its answers would go there with
# each of them; what has not been said after twice the length of the true answer counts as unsaid.
_MOST, _LEAST = 200, 32
_ANSWERS_ONLY = ("holdout", "forget_privleak")
_INSTRUCTION = "The following are multiple choice questions (with answers).\n\n"


@dataclass(frozen=True)
class Compared:
    """answer: that of the set; true: its paraphrase, or itself if there is none; false: others."""

    answer: Encoded
    true: Encoded
    false: tuple[Encoded, ...]


@dataclass(frozen=True)
class Opening:
    """What a text is generated from.

    question: `ids` as the user wrote them; truth: what should follow; limit: of new tokens.
    """

    question: str
    ids: Ids
    truth: str
    limit: int


@dataclass(frozen=True)
class Asked:
    """One set. answers: all, long texts in pieces; compared: those with false answers.

    running: whether these are texts that nobody asks for.
    """

    answers: tuple[Encoded, ...]
    compared: tuple[Compared, ...] = ()
    openings: tuple[Opening, ...] = ()
    running: bool = False


@dataclass(frozen=True)
class Question:
    """A multiple-choice question. choices: prompt and letter of each; right: an index."""

    choices: tuple[Encoded, ...]
    right: int


@dataclass(frozen=True)
class Prepared:
    """sets: 'forget', 'retain', 'holdout' and the probes; choices: multiple-choice questions.

    private_texts: the answers of members and strangers as texts, without their end.
    notes: what was done to the sets, to be told.
    """

    sets: Mapping[str, Asked]
    choices: Mapping[str, tuple[Question, ...]]
    private_texts: Mapping[Encoded, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[Encoded, ...]:
        """Answers that membership inference should recognise: MUSE has a set for it."""
        return self.sets.get("forget_privleak", self.sets["forget"]).answers

    @property
    def strangers(self) -> tuple[Encoded, ...]:
        """Answers that no model has seen; none without a holdout set."""
        return self.sets["holdout"].answers if "holdout" in self.sets else ()

    @property
    def verbatim(self) -> tuple[Encoded, ...]:
        """Answers that extraction is tried on."""
        return self.sets.get("forget_verbmem", self.sets["forget"]).answers

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """Everything whose log-probabilities are needed."""
        sets = self.sets.values()
        asked = [row for each in sets for row in each.answers]
        compared = [row for each in sets for c in each.compared for row in (c.true, *c.false)]
        letters = [row for each in self.choices.values() for q in each for row in q.choices]
        return tuple(dict.fromkeys((*asked, *compared, *letters)))


def prepare(
    data: UnlearningData, encoder: Encoder, context: int, kept_rows: int | None = None
) -> Prepared:
    """One part of the data, nothing of it longer than `context` tokens.

    kept_rows: of each set that is to be kept, generate for at most so many rows, evenly spaced,
    and compare as many with their false answers; that takes most of the time.
    Raises: UserError with the rows of answers that do not fit.
    """
    given = {"forget": data.forget, "retain": data.retain, "holdout": data.holdout, **data.probes}
    sets: dict[str, Asked] = {}
    notes: list[str] = []
    for name, rows in given.items():
        if rows is not None:
            encoded = encoder.encode_set(rows, context)
            notes += encoded.notes
            most = None if name.startswith("forget") else kept_rows
            sets[name] = _asked(name, rows, encoded.rows, encoder, context, most)
    choices: dict[str, tuple[Question, ...]] = {}
    for name, questions in data.choices.items():
        fitting, note = _questions(questions, encoder, context)
        notes += note
        if fitting:
            choices[name] = fitting
    prepared = Prepared(sets, choices)
    private = (*prepared.members, *prepared.strangers)
    texts = {row: encoder.text(row.answer) for row in private}
    return Prepared(sets, choices, texts, tuple(notes))


def _asked(
    name: str,
    data: DataSet[Example],
    answers: tuple[Encoded, ...],
    encoder: Encoder,
    context: int,
    most: int | None,
) -> Asked:
    if name in _ANSWERS_ONLY:
        return Asked(answers)
    compared = _compared(data, answers, encoder, context)
    openings = _openings(name, data, answers, encoder, context)
    running = any(each.continues and not each.prompt for each in data)
    return Asked(answers, evenly(compared, most), evenly(openings, most), running)


def _compared(
    data: DataSet[Example], encoded: Sequence[Encoded], encoder: Encoder, context: int
) -> list[Compared]:
    examples = [each for each in data if each.perturbed]
    answers = {row.example: row for row in encoded}
    own = [answers[place] for place, each in enumerate(data) if each.perturbed]
    true = [each.answered(each.paraphrased_answer or each.answer) for each in examples]
    false = [each.answered(other) for each in examples for other in each.perturbed]
    right, wrong = (
        encoder.encode_set(DataSet(f"{data.name}: {what} answers", tuple(rows)), context).rows
        for what, rows in (("paraphrased", true), ("perturbed", false))
    )
    rest = iter(wrong)
    return [
        Compared(answer, truth, tuple(next(rest) for _ in each.perturbed))
        for each, answer, truth in zip(examples, own, right, strict=True)
    ]


def _openings(
    name: str, data: DataSet[Example], encoded: Sequence[Encoded], encoder: Encoder, context: int
) -> list[Opening]:
    """Of questions, of the beginnings of texts; none where nobody wants to know."""
    found = []
    for row in encoded:
        example = data.rows[row.example]
        if not example.continues:
            limit = _NEW_TOKENS.get(name, min(_MOST, max(_LEAST, 2 * len(row.answer))))
            opening = Opening(example.prompt, row.prompt, example.answer, limit)
        elif example.prompt or name in ("forget", "retain"):
            cut = row.start if example.prompt else min(max(len(row.ids) // 2, 1), VERBATIM)
            truth = encoder.text(row.ids[cut : cut + VERBATIM])
            opening = Opening(encoder.text(row.ids[:cut]), row.ids[:cut], truth, VERBATIM)
        else:
            continue
        # ROUGE compares words, and has no value where there are none.
        if any(map(str.isalnum, opening.truth)):
            limit = min(opening.limit, context - len(opening.ids))
            found.append(replace(opening, limit=limit))
    return found


def _questions(
    data: DataSet[Choice], encoder: Encoder, context: int
) -> tuple[tuple[Question, ...], list[str]]:
    """Those that fit into the context, and a note on those that do not."""
    found, long = [], []
    for place, each in enumerate(data):
        letters = string.ascii_uppercase[: len(each.choices)]
        if len(letters) < len(each.choices):
            raise UserError(
                f"'{data.name}' row {each.row} has {len(each.choices)} choices: at most "
                f"{len(letters)} have letters"
            )
        lines = (f"{letter}. {text}" for letter, text in zip(letters, each.choices, strict=True))
        prompt = "\n".join((_INSTRUCTION + each.question, *lines, "Answer:"))
        rows = tuple(
            encoder.encode(Example(prompt, letter, continues=True, row=each.row), place)
            for letter in letters
        )
        if max(len(row.ids) for row in rows) <= context:
            found.append(Question(rows, each.answer))
        else:
            long.append(each.row)
    note = (
        f"'{data.name}': left out {len(long)} of {counted(len(data), 'question')} with more than "
        f"{context} tokens ({some_rows(long)})"
    )
    return tuple(found), [note] if long else []
