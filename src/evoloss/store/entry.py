"""A candidate as the store keeps it, its losses texts: for reading many and parsing few."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.lang.expr import Expr, complexity
from evoloss.lang.text import EXACT, to_text
from evoloss.store.schema import formula, read_text


class Entry(NamedTuple):
    """One row, with the fields of a Candidate but for those that tell of losses.

    tuned: whether it has weights. structure, text: of the loss without its weights and with them,
    the same where they ran away to infinity or NaN. told: the details as JSON.
    """

    id: int
    generation: int
    operator: str
    parents: tuple[int, ...]
    fate: Fate
    error: float | None
    same_as: int | None
    steps: int
    epochs: int | None
    rate: float
    tuned: bool
    complexity: int
    structure: str
    text: str
    told: str = "{}"

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """The entry of a candidate that has been parsed."""
        structure = to_text(candidate.expression)
        return cls(
            candidate.id, candidate.generation, candidate.operator, candidate.parents,
            candidate.fate, candidate.error, candidate.same_as, candidate.steps, candidate.epochs,
            candidate.rate, candidate.phi is not None, complexity(candidate.expression), structure,
            formula(candidate) or structure, json.dumps(dict(candidate.details)),
        )  # fmt: skip

    @property
    def loss(self) -> Expr:
        """The tuned loss; the bare structure where its weights ran away."""
        return read_text(self.text)

    @property
    def shown(self) -> str:
        """The tuned loss for a table: every digit of its numbers, but a digest of a network."""
        return to_text(self.loss, EXACT) if '"' in self.text else self.text

    @property
    def details(self) -> Mapping[str, Any]:
        """What else training told."""
        found: Mapping[str, Any] = json.loads(self.told)
        return found


ENTRIES = """
SELECT c.id, c.generation, c.operator, c.parents, c.fate, c.error, c.same_as, c.steps, c.epochs,
    c.rate, c.phi IS NOT NULL, k.complexity, c.expression, coalesce(c.formula, c.expression),
    c.details
FROM candidates c JOIN keys k ON k.id = c.id ORDER BY c.id"""

_FATES = {fate.value: fate for fate in Fate}


def from_columns(row: tuple[Any, ...]) -> Entry:
    """The entry of a row of ENTRIES."""
    parents, fate = tuple(json.loads(row[3])), _FATES[row[4]]
    return Entry._make((*row[:3], parents, fate, *row[5:10], bool(row[10]), *row[11:]))
