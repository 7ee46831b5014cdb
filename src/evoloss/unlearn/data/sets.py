"""Puts forget, retain and holdout set together, and refuses sets that share a question."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet, Example, UnlearningData
from evoloss.unlearn.data.examples import read_examples, some_rows
from evoloss.wording import counted


def from_files(
    forget: Path, retain: Path | None = None, holdout: Path | None = None
) -> UnlearningData:
    """The task of a user's own files. Raises: UserError for whatever is wrong with them."""
    return checked(
        UnlearningData(
            name=forget.stem,
            forget=read_examples(forget),
            retain=None if retain is None else read_examples(retain),
            holdout=None if holdout is None else read_examples(holdout),
        )
    )


def checked(data: UnlearningData) -> UnlearningData:
    """The data, if forget, retain and holdout set have no question or text in common.

    What is both forgotten and kept has no right answer, and what was seen is no holdout.
    Raises: UserError with the rows.
    """
    named = {"forget": data.forget, "retain": data.retain, "holdout": data.holdout}
    given = [(role, each) for role, each in named.items() if each is not None]
    for first, second in combinations(given, 2):
        _check_disjoint(*first, *second)
    return data


def _check_disjoint(
    role: str, one: DataSet[Example], other_role: str, other: DataSet[Example]
) -> None:
    places: dict[str, int] = {}
    for example in other:
        for key in example.keys:
            places.setdefault(key, example.row)
    shared = {example.row: places[key] for example in one for key in example.keys if key in places}
    if shared:
        count = counted(len(shared), "question or text", "questions or texts")
        raise UserError(
            f"{role} and {other_role} set share {count}: "
            f"{some_rows(list(shared))} of '{one.name}', "
            f"{some_rows(list(shared.values()))} of '{other.name}'; remove them from one of the two"
        )
