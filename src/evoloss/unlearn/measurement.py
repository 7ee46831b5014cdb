"""From models to the values of all metrics that their data allows, K candidates at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import nn

from evoloss.unlearn.answers import gradient_norms, told
from evoloss.unlearn.generation import greedy
from evoloss.unlearn.metrics.table import MetricError
from evoloss.unlearn.prepared import Asked, Prepared
from evoloss.unlearn.recipes import Evidence, Measured, Recipes, recipes, utility_parts
from evoloss.unlearn.tokens import Encoder
from evoloss.wording import counted

# A model that knows no end of an answer goes on with questions of its own; as OpenUnlearning.
_NEXT_QUESTION = ("\n\n", "\nQuestion", "Question:")


@dataclass(frozen=True)
class Failed:
    """A model that could not be measured, and why."""

    reason: str


def measure(
    model: nn.Module,
    encoder: Encoder,
    prepared: Prepared,
    *,
    copies: int = 1,
    texts: bool = True,
    original: Measured | None = None,
    retain: Measured | None = None,
    batch: int = 32,
) -> list[Measured | Failed]:
    """Each candidate's metrics, or why there are none; a candidate's failure is its own.

    model: as it is, or with the adapters of so many `copies` attached.
    texts: generate, and compare what is generated.
    original: the model before unlearning, for what has been forgotten and kept; retain: the model
    without the forget set; both measured on the same `prepared`.
    batch: rows that go through the model at once, for each candidate.
    """
    private = (*prepared.members, *prepared.strangers) if prepared.strangers else ()
    others = dict.fromkeys(prepared.rows)
    for row in private:
        others.pop(row, None)
    pad = encoder.pad
    with _evaluating(model):
        found = told(model, others, pad, copies=copies, batch=batch)
        for known, more in zip(
            found,
            told(model, private, pad, copies=copies, batch=batch, moments=True),
            strict=True,
        ):
            known |= more
        # The backward pass holds what every layer has seen, as training does.
        norms = gradient_norms(model, private, pad, copies=copies, batch=max(1, batch // 4))
        said = _said(model, encoder, prepared, copies, batch) if texts else [{}] * copies
    each = recipes(prepared, original, retain, texts)
    return [
        _measured(each, Evidence(prepared, *own)) for own in zip(found, norms, said, strict=True)
    ]


def quick(
    model: nn.Module,
    encoder: Encoder,
    prepared: Prepared,
    *,
    copies: int = 1,
    original: Measured | None = None,
    retain: Measured | None = None,
    batch: int = 32,
) -> list[Measured | Failed]:
    """What log-probabilities of forget and retain set alone tell, down to a balance: for racing."""
    sets = {name: prepared.sets[name] for name in ("forget", "retain") if name in prepared.sets}
    only = Prepared({name: Asked(each.answers) for name, each in sets.items()}, {})
    with _evaluating(model):
        found = told(model, only.rows, encoder.pad, copies=copies, batch=batch)
    each = recipes(only, original, retain, texts=False)
    return [_measured(each, Evidence(only, own)) for own in found]


def missing(
    prepared: Prepared,
    original: Measured | None = None,
    retain: Measured | None = None,
    texts: bool = True,
) -> dict[str, str]:
    """The metrics that `measure` leaves out of such data, each with the reason."""
    every = recipes(prepared, original, retain, texts)
    return {name: each for name, each in every.items() if isinstance(each, str)}


def _measured(each: Recipes, evidence: Evidence) -> Measured | Failed:
    prepared, told = evidence.prepared, evidence.told
    bad = sum(not np.isfinite(one.log_probs).all() for one in told.values())
    if bad:
        return Failed(
            f"{bad} of {counted(len(told), 'answer')} {'has' if bad == 1 else 'have'} no finite "
            "log-probability: the model is destroyed"
        )
    try:
        for name, recipe in each.items():
            if not isinstance(recipe, str):
                evidence.values[name] = recipe(evidence)
    except MetricError as error:
        return Failed(str(error))
    return Measured(
        evidence.values,
        evidence.texts.get("forget", ()),
        evidence.texts.get("retain", ()),
        utility_parts(prepared, each),
        tuple(evidence.log_ratios().tolist()) if prepared.sets["forget"].compared else (),
        evidence.means(prepared.members),
        evidence.means(prepared.strangers),
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout; afterwards as it was."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def _said(
    model: nn.Module, encoder: Encoder, prepared: Prepared, copies: int, batch: int
) -> list[dict[str, tuple[str, ...]]]:
    """What each candidate says to the openings of each set."""
    openings = [each for asked in prepared.sets.values() for each in asked.openings]
    prompts, limits = [each.ids for each in openings], [each.limit for each in openings]
    found: list[dict[str, tuple[str, ...]]] = []
    for own in greedy(model, encoder, prompts, limits, copies=copies, batch=batch):
        texts, rest = {}, iter(own)
        for name, asked in prepared.sets.items():
            said = [encoder.text(next(rest)) for _ in asked.openings]
            texts[name] = tuple(_first_answer(t) if name.endswith("_knowmem") else t for t in said)
        found.append(texts)
    return found


def _first_answer(text: str) -> str:
    for stop in _NEXT_QUESTION:
        text = text.split(stop)[0]
    return text.strip()
