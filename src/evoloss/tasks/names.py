"""Surname to nationality, character by character, from one text file of names per nationality.

Names are lower-cased and folded to ASCII (accents dropped): the letter case and the accents of
the lists depend on who typed them. A name that is listed under several nationalities stays in one
part of the split with all of them.
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from evoloss.errors import UserError
from evoloss.tasks.compose import compose
from evoloss.tasks.options import Options
from evoloss.tasks.plugin import describe
from evoloss.tasks.splits import Array, Rows, as_splits, three_parts
from evoloss.tasks.task import Task
from evoloss.wording import counted

ALPHABET = string.ascii_lowercase + " '-"
"""Character number i + 1 is ALPHABET[i]; 0 is padding."""

_FOLDED = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "’": "'"})
_HOME = "https://download.pytorch.org/tutorial/data.zip"


def names(options: Options) -> Task:
    """Surnames of 18 nationalities (the data of PyTorch's tutorial on recurrent networks)."""
    folder = _folder(options.data_dir)
    listed, nationalities = read_names(folder)
    unique = list(dict.fromkeys(listed))  # (name, class) pairs, in the order of the files
    texts = [name for name, _ in unique]
    rows = Rows(encode(texts), np.array([number for _, number in unique]), nationalities)
    parts = three_parts(rows, options.seed, f"'{folder}'", keys=texts)
    several = sum(count > 1 for count in Counter(texts).values())
    notes = (
        f"{counted(len(listed), 'name')} read, "
        f"{counted(len(listed) - len(unique), 'repetition')} left out; "
        "lower case, accents dropped",
        counted(several, "name stands", "names stand")
        + " under more than one nationality: no classifier gets them all right",
    )
    return compose(
        "names",
        as_splits(parts, len(nationalities)),
        "classification",
        options.network or "char-gru",
        notes=notes,
    )


def fold(name: str) -> str:
    """Lower case, without accents, only characters of ALPHABET."""
    plain = unicodedata.normalize("NFD", name.strip().lower().translate(_FOLDED))
    return "".join(character for character in plain if character in ALPHABET).strip()


def encode(texts: list[str]) -> Array:
    """(N, L) int64 character numbers, padded with 0 on the right to the longest text."""
    codes = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ALPHABET.index(character) + 1 for character in text]
    return codes


def read_names(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(folded name, class number) of every line, and the nationalities by class number."""
    files = sorted(folder.glob("*.txt"))
    listed = []
    for number, file in enumerate(files):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"'{file}' cannot be read as UTF-8 text ({describe(error)}): convert it"
            ) from error
        listed += [(name, number) for name in map(fold, lines) if name]
    return listed, tuple(file.stem for file in files)


def _folder(data_dir: Path | None) -> Path:
    places = () if data_dir is None else (data_dir / "names", data_dir, data_dir / "data" / "names")
    for place in places:
        if len(list(place.glob("*.txt"))) > 1:
            return place
    where = "" if data_dir is None else f" in '{data_dir}' or '{data_dir / 'names'}'"
    raise UserError(
        f"names not found{where}: put one UTF-8 file NATIONALITY.txt per nationality, a name a "
        f"line, into a folder (such as data/names of {_HOME}) and give it as --data-dir"
    )
