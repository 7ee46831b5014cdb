"""Makes examples of rows: finds prompt and answer under their usual names, drops repeated rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evoloss.errors import UserError
from evoloss.unlearn.data.example import Choice, DataSet, Example, Record
from evoloss.unlearn.data.files import Raw, read_rows
from evoloss.wording import counted

PROMPT_KEYS = ("prompt", "question", "instruction", "input")
ANSWER_KEYS = ("response", "answer", "completion", "output")
TEXT_KEY = "text"
PARAPHRASE_KEYS = ("paraphrased_prompt", "paraphrased_question")
OTHER_KEYS = ("paraphrased_answer", "perturbed_answer")
LEAST_ROWS = 2
_SHOWN = 5

R = TypeVar("R", bound=Record)
Parse = Callable[[Raw, int, str], R]


def read_examples(
    paths: Path | Sequence[Path],
    name: str | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    continues: bool = False,
) -> DataSet[Example]:
    """Examples of prompt and answer, or of plain text, from one file or its shards.

    name: how to call the set, the path by default. rename: keys of the file to read as others.
    continues: the answers go on from their prompts as running text.
    Raises: UserError with file and row for what cannot be an example, or for fewer than two.
    """

    def parse(raw: Raw, row: int, where: str) -> Example:
        known = {(rename or {}).get(key, key): value for key, value in raw.items()}
        return _example(known, row, where, continues)

    used = {TEXT_KEY, *PROMPT_KEYS, *ANSWER_KEYS, *PARAPHRASE_KEYS, *OTHER_KEYS, *(rename or {})}
    return _read(paths, name, parse, used)


def read_choices(paths: Path | Sequence[Path], name: str | None = None) -> DataSet[Choice]:
    """Multiple-choice questions with the keys question, choices and answer, an index from 0.

    Raises: UserError with file and row for what is none, or for fewer than two.
    """
    return _read(paths, name, _choice, {"question", "choices", "answer", "subject"})


def some_rows(rows: Sequence[int]) -> str:
    """`row 3`, or `rows 3, 5, …`: the first few."""
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def _read(
    paths: Path | Sequence[Path], name: str | None, parse: Parse[R], used: set[str]
) -> DataSet[R]:
    files = [paths] if isinstance(paths, Path) else list(paths)
    what = name or str(files[0])
    # Rows of later shards count on from the earlier ones, so that a number names one row.
    rows: list[R] = []
    unused: dict[str, None] = {}
    for file in files:
        before = len(rows)
        for number, raw in read_rows(file):
            rows.append(parse(raw, before + number, f"'{file}' row {number}"))
            unused.update(dict.fromkeys(key for key in raw if key not in used))
    kept, repeated = _distinct(rows)
    if len(kept) < LEAST_ROWS:
        count = (
            "is empty" if not rows else "has a single row" if kept == rows else "repeats one row"
        )
        raise UserError(f"'{what}' {count}: a set needs at least {LEAST_ROWS} different rows")
    notes = []
    if repeated:
        notes.append(
            f"'{what}': dropped "
            f"{counted(len(repeated), 'row that repeats', 'rows that repeat')} an earlier one "
            f"({some_rows(repeated)})"
        )
    if unused:
        notes.append(f"'{what}': the keys {', '.join(unused)} are not used")
    return DataSet(what, tuple(kept), tuple(notes))


def _distinct(rows: Sequence[R]) -> tuple[list[R], list[int]]:
    """The first of equal rows, and the row numbers of the others."""
    kept: dict[R, None] = {}
    repeated = []
    for row in rows:
        if row in kept:
            repeated.append(row.row)
        kept.setdefault(row, None)
    return list(kept), repeated


def _example(raw: Raw, row: int, where: str, continues: bool) -> Example:
    prompts, answers = ([key for key in keys if key in raw] for keys in (PROMPT_KEYS, ANSWER_KEYS))
    if TEXT_KEY in raw and not answers:
        return Example("", _words(raw, TEXT_KEY, where), continues=True, row=row)
    if not prompts or not answers:
        raise UserError(
            f"{where} has the keys {', '.join(map(str, raw)) or 'none'}: it needs "
            f"{'/'.join(PROMPT_KEYS)} and {'/'.join(ANSWER_KEYS)}, or '{TEXT_KEY}'"
        )
    if len(answers) > 1 or (len(prompts) > 1 and prompts != ["instruction", "input"]):
        raise UserError(
            f"{where} has {' and '.join(prompts + answers)}: leave one prompt and one answer"
        )
    paraphrases = [key for key in PARAPHRASE_KEYS if key in raw]
    return Example(
        _prompt(raw, prompts, where),
        _words(raw, answers[0], where),
        _optional(raw, paraphrases[0] if paraphrases else "", where),
        _optional(raw, "paraphrased_answer", where),
        _several(raw, "perturbed_answer", where),
        continues,
        row,
    )


def _prompt(raw: Raw, keys: Sequence[str], where: str) -> str:
    """The prompt; an instruction is followed by its input if it has one."""
    first = _words(raw, keys[0], where)
    if len(keys) == 1 or raw[keys[1]] in ("", None):
        return first
    return f"{first}\n\n{_words(raw, keys[1], where)}"


def _choice(raw: Raw, row: int, where: str) -> Choice:
    if missing := [key for key in ("question", "choices", "answer") if key not in raw]:
        raise UserError(
            f"{where} has the keys {', '.join(map(str, raw)) or 'none'}: {missing[0]} is missing"
        )
    choices, answer = _several(raw, "choices", where), raw["answer"]
    if len(choices) < 2:
        entries = counted(len(choices), "entry", "entries")
        raise UserError(f"{where}: 'choices' has {entries}, a question needs two")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise UserError(f"{where}: 'answer' is {answer!r}, not an index of 0 to {len(choices) - 1}")
    return Choice(_words(raw, "question", where), choices, answer, row)


def _words(raw: Raw, key: str, where: str) -> str:
    return _text(raw[key], f"{where}: '{key}'")


def _optional(raw: Raw, key: str, where: str) -> str | None:
    return None if raw.get(key) is None else _words(raw, key, where)


def _several(raw: Raw, key: str, where: str) -> tuple[str, ...]:
    """A text or a list of texts as a tuple."""
    value = raw.get(key)
    if value is None:
        return ()
    each = value if isinstance(value, list) else [value]
    return tuple(_text(text, f"{where}: '{key}'") for text in each)


def _text(value: Any, what: str) -> str:
    """The text without space around it, for spaces at its ends would become tokens."""
    if not isinstance(value, str):
        raise UserError(f"{what} is a {type(value).__name__}, not a text")
    if not value.strip():
        raise UserError(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} has half a character (\\u escape) at {error.start}") from error
    return value.strip()
