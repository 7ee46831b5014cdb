"""The tables of a run database, and how a candidate becomes a row and a row a candidate.

Texts and JSON are readable with any SQLite tool. Floats survive exactly: JSON writes the shortest
text that reads back as the same number.
"""

import json
from dataclasses import replace

from evoloss.discovery.candidate import Candidate, Fate
from evoloss.errors import LossError
from evoloss.lang.expr import Expr
from evoloss.lang.parse import parse_expression
from evoloss.lang.text import to_text
from evoloss.lang.types import SUPERVISED, UNLEARNING_TOKENS

APPLICATION = 0x45564F4C
"""The application id in the file's header, `EVOL`: tells a run from any other database."""

FORMAT = 2
"""The version of these tables, in the header's user version."""

# `error` has no type because SQLite stores a REAL of -0.0 as the integer 0, which loses its sign.
TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE generations (
    generation INTEGER PRIMARY KEY,
    seconds TEXT NOT NULL          -- JSON: wall time by stage
);
CREATE TABLE candidates (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations,
    position INTEGER NOT NULL,     -- in the generation
    operator TEXT NOT NULL,
    parents TEXT NOT NULL,         -- JSON: ids
    expression TEXT NOT NULL,      -- the structure, without weights
    canonical TEXT NOT NULL,
    formula TEXT,                  -- with the weights bound in; NULL if they are not finite
    phi TEXT,                      -- JSON: one weight an edge; NULL if never tuned
    fate TEXT NOT NULL,
    reason TEXT NOT NULL,
    error,
    same_as INTEGER,
    steps INTEGER NOT NULL,
    epochs INTEGER,
    rate NOT NULL,                 -- multiple of the learning rate
    details TEXT NOT NULL          -- JSON: what else training told
);
CREATE INDEX candidates_by_generation ON candidates (generation);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,   -- which need not be finished
    record TEXT NOT NULL           -- JSON: what the proposer keeps, such as prompts and replies
);
CREATE TABLE keys (
    id INTEGER PRIMARY KEY REFERENCES candidates,
    form BLOB NOT NULL,            -- digests of what tells losses apart
    complexity INTEGER NOT NULL,
    untuned BLOB,
    tuned BLOB
);
CREATE TABLE evaluations (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

SUMMARIES = """
SELECT c.id, c.generation, c.fate, c.error, c.steps, k.form, k.complexity, k.untuned, k.tuned
FROM candidates c JOIN keys k ON k.id = c.id ORDER BY c.id"""

COLUMNS = (
    "id, generation, position, operator, parents, expression, canonical, "
    "phi, fate, reason, error, same_as, steps, epochs, rate, details"
)

Row = tuple[
    int, int, int, str, str, str, str, str | None, str, str, float | None, int | None, int,
    int | None, float, str,
]  # fmt: skip

_ANY = replace(
    UNLEARNING_TOKENS, name="any", inputs={**SUPERVISED.inputs, **UNLEARNING_TOKENS.inputs}
)
"""For reading: that a loss fits its run was checked when it was proposed."""


def to_row(candidate: Candidate) -> Row:
    """The values of COLUMNS."""
    phi = candidate.phi
    return (
        candidate.id,
        candidate.generation,
        candidate.index,
        candidate.operator,
        json.dumps(candidate.parents),
        to_text(candidate.expression),
        candidate.canonical,
        None if phi is None else json.dumps([float(weight) for weight in phi]),
        candidate.fate.value,
        candidate.reason,
        None if candidate.error is None else float(candidate.error),
        candidate.same_as,
        candidate.steps,
        candidate.epochs,
        candidate.rate,
        json.dumps(dict(candidate.details)),
    )


def from_row(row: Row) -> Candidate:
    """The candidate that `to_row` wrote."""
    (id, generation, position, operator, parents, expression, canonical,
     phi, fate, reason, error, same_as, steps, epochs, rate, details) = row  # fmt: skip
    return Candidate(
        id=id,
        generation=generation,
        index=position,
        operator=operator,
        parents=tuple(json.loads(parents)),
        expression=read_text(expression),
        canonical=canonical,
        phi=None if phi is None else tuple(json.loads(phi)),
        fate=Fate(fate),
        reason=reason,
        error=error,
        same_as=same_as,
        steps=steps,
        epochs=epochs,
        rate=rate,
        details=json.loads(details),
    )


def read_text(text: str) -> Expr:
    """The loss of a stored text."""
    return parse_expression(text, _ANY)


def formula(candidate: Candidate) -> str | None:
    """The text of the tuned loss; None where weights ran away to infinity or NaN."""
    try:
        return to_text(candidate.loss)
    except LossError:
        return None
