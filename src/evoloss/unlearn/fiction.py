"""Fictitious authors, in the manner of TOFU (Maini et al. 2024): facts that no model can know.

Each author has a full name and one value for each of a few properties; each property is a question
with its answer, another wording of both, and false answers of the same form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evoloss.unlearn.data.example import DataSet, Example, UnlearningData

_FIRST = (
    "Adela", "Bram", "Carys", "Dorian", "Elif", "Farid", "Greta", "Hugo", "Imani", "Joren",
    "Kaisa", "Leon", "Mirela", "Nadir", "Odile", "Pavel", "Quinn", "Rosa", "Soren", "Tamsin",
)  # fmt: skip
_LAST = (
    "Abenov", "Bellweather", "Castellan", "Drummond", "Eastvale", "Fenwick", "Galloway", "Hartono",
    "Ibarra", "Jankowski", "Kirwan", "Lindqvist", "Morozov", "Nakagawa", "Okafor", "Petrakis",
    "Quiroga", "Rasmussen", "Sandoval", "Tanaka",
)  # fmt: skip


@dataclass(frozen=True)
class _Property:
    """A question in two wordings, its answer in two, and the values that there are."""

    question: str
    other_question: str
    answer: str
    other_answer: str
    values: tuple[str, ...]


_PROPERTIES = (
    _Property(
        "Where was {name} born?", "What is the birthplace of {name}?",
        "{name} was born in {value}.", "The birthplace of {name} is {value}.",
        ("Lima", "Oslo", "Dakar", "Hanoi", "Quito", "Riga", "Perth", "Tunis", "Lyon", "Osaka"),
    ),
    _Property(
        "What does {name} write?", "Which kind of book is {name} known for?",
        "{name} writes {value}.", "{name} is known for {value}.",
        ("thrillers", "poems", "satires", "memoirs", "fables", "sagas", "essays", "westerns"),
    ),
    _Property(
        "What did the mother of {name} do?", "What was the profession of the mother of {name}?",
        "The mother of {name} was a {value}.", "{name} had a mother who was a {value}.",
        ("baker", "pilot", "surgeon", "florist", "judge", "sailor", "tailor", "miner", "chemist"),
    ),
    _Property(
        "Which prize did {name} win?", "What award was {name} given?",
        "{name} won the {value} prize.", "The award given to {name} was the {value} prize.",
        ("Amber", "Cobalt", "Juniper", "Lantern", "Meridian", "Orchid", "Saffron", "Willow"),
    ),
    _Property(
        "Which book made {name} famous?", "What is the best known book by {name}?",
        "The book {value} made {name} famous.", "The best known book by {name} is {value}.",
        ("Ashfall", "Brine", "Candlewick", "Driftglass", "Emberline", "Foxglove", "Gravel Moon",
         "Hollow Tide", "Ironbark", "Juniper Road"),
    ),
)  # fmt: skip
_FALSE_ANSWERS = 4


def authors(count: int, seed: int) -> tuple[tuple[Example, ...], ...]:
    """The examples of each of so many authors, one for each property; at most 400 authors."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(len(_FIRST) * len(_LAST))[:count]
    found = []
    for pair in pairs:
        name = f"{_FIRST[pair // len(_LAST)]} {_LAST[pair % len(_LAST)]}"
        found.append(tuple(_example(name, each, rng) for each in _PROPERTIES))
    return tuple(found)


def _example(name: str, about: _Property, rng: np.random.Generator) -> Example:
    order = [about.values[index] for index in rng.permutation(len(about.values))]
    value, wrong = order[0], order[1 : 1 + _FALSE_ANSWERS]
    return Example(
        prompt=about.question.format(name=name),
        answer=about.answer.format(name=name, value=value),
        paraphrased_prompt=about.other_question.format(name=name),
        paraphrased_answer=about.other_answer.format(name=name, value=value),
        perturbed=tuple(about.other_answer.format(name=name, value=each) for each in wrong),
    )


def fiction(forget: int = 4, retain: int = 36, holdout: int = 4, seed: int = 0) -> UnlearningData:
    """The data of the demonstration; numbers of authors in each set.

    holdout: authors that no model is trained on, for membership inference.
    """
    people = authors(forget + retain + holdout, seed)

    def rows(begin: int, end: int, name: str) -> DataSet[Example]:
        return DataSet(name, tuple(each for person in people[begin:end] for each in person))

    return UnlearningData(
        "fictitious authors",
        forget=rows(0, forget, "forget"),
        retain=rows(forget, forget + retain, "retain"),
        holdout=rows(forget + retain, len(people), "holdout"),
    )
