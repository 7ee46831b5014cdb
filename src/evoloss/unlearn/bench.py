"""A problem made ready for training: tokens, reference log-probabilities, and what to compare with.

All trainings are on the same data: the whole forget set, for that is what is to be forgotten, and a
part of the retain set. A rate that suits half of the former is too large for all, and with more of
the latter less is forgotten. What differs is what is measured: a search looks at its part of the
questions to forget, and at questions to keep that it does not train on, for any loss with a strong
retain term keeps those that it is trained on; the test looks at others of either kind.

Which questions to keep a search happens to look at decides as much as the loss does: some are lost
by all losses, others by none. So each adapter of a finalist is trained on another part of those
that are not for the test, and measured on the rest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor

from evoloss.discovery.randomness import Purpose, stream, torch_seed
from evoloss.engine.memory import in_parts
from evoloss.errors import UserError
from evoloss.unlearn import identity
from evoloss.unlearn.data.divide import Divided, divide, divide_set, evenly
from evoloss.unlearn.data.example import DataSet, Example, UnlearningData
from evoloss.unlearn.language import REFERENCE_BATCH, Language, load_language
from evoloss.unlearn.layers import chosen_layers
from evoloss.unlearn.log_probs import Sequences, rows_at_once
from evoloss.unlearn.measurement import Failed, measure, missing
from evoloss.unlearn.objective import Part, Sets
from evoloss.unlearn.phase import SEARCHING, TESTING, Known, Phase, division, of_finals
from evoloss.unlearn.prepared import Prepared, prepare
from evoloss.unlearn.problem import Problem
from evoloss.unlearn.recipes import TRAINED, Measured
from evoloss.unlearn.settings import UnlearnSettings
from evoloss.unlearn.sharing import Sharing
from evoloss.unlearn.tokens import Encoded, padded
from evoloss.unlearn.trainer import Progress, begin
from evoloss.wording import counted

LEAST_TO_DIVIDE = 8
"""With fewer rows to keep, a search measures those that it trains on."""

T = TypeVar("T")
Say = Callable[[str], None]
"""Tells the user something, in a line."""


Kind = Literal["trained", "measured"]
_SAID = {"trained": "of a batch", "measured": "measured"}


class Bench:
    """What all trainings of a problem share.

    device: of the model; None takes a GPU if there is one. known: of phases, by their names, what
    another process has found out already.
    """

    def __init__(
        self, problem: Problem, settings: UnlearnSettings, say: Say = lambda line: None,
        device: str | None = None, known: Mapping[str, Known] | None = None,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.say = say
        self.device = device
        self.known = known or {}
        self.sharing = Sharing.of(settings)
        self._whole = replace(self.sharing, threads=torch.get_num_threads())
        self.language: Language = load_language(problem.model, device, settings.precision)
        chosen_layers(self.language.model, settings.lora.targets)  # wrong names are told here
        # As it is from here on: a run that is resumed elsewhere has the same weights.
        self.settings = replace(settings, precision=self.language.precision)
        self.context = min(settings.context, self.language.context)
        # Both parts: what will not do in the test part is told before the search, not after it.
        whole = prepare(problem.data, self.language.encoder, self.context)
        for note in (self.language.encoder.note, *whole.notes):
            say(f"note: {note}")
        self.divided: Divided = divide(problem.data, settings.seed, settings.test_share)
        self._phases: dict[str, Phase] = {}
        kept = self.divided.search.retain
        if kept is not None and self.has_retain and self._divided_kept is None:
            say(
                f"note: {counted(len(kept), 'row')} of '{kept.name}' for the search, less than "
                f"{LEAST_TO_DIVIDE}: what is kept is measured on those that are trained on"
            )

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of the data and the models."""
        found = identity.of_data(self.problem.data)
        found["the model"] = identity.of_model(self.language.model)
        if self._retain_model is not None:
            found["the retain model"] = identity.of_model(self._retain_model.model)
        return found

    @property
    def has_retain(self) -> bool:
        """Whether losses are of what is to be kept, too."""
        return self.problem.data.retain is not None and not self.settings.forget_only

    def steps(self, phase: Phase, epochs: int) -> int:
        """Training steps of so many passes over the forget set."""
        return epochs * math.ceil(len(phase.sets.forget) / self.settings.batch)

    @property
    def searching(self) -> Phase:
        """What a search trains on, and the search part, which it measures on."""
        return self.phase(SEARCHING)

    @property
    def testing(self) -> Phase:
        """What comes after the search."""
        return self.phase(TESTING)

    @property
    def selecting(self) -> tuple[str, ...]:
        """The names of all phases that the search part is divided into."""
        seeds = self.settings.final_seeds if self.settings.finalists else 0
        again = [self.finals(number) for number in range(1, 1 + seeds)]
        return tuple(dict.fromkeys([SEARCHING, *again]))

    def finals(self, number: int) -> str:
        """The name of the phase of the finalists' adapters of a number, from 1."""
        return SEARCHING if self._divided_kept is None else of_finals(number)

    def phase(self, name: str) -> Phase:
        """The phase of a name, made when it is asked for first."""
        if name not in self._phases:
            trained, measured = self._kept(division(name))
            part = replace(self.divided.search, retain=measured)
            self._phases[name] = self._made(
                name, trained, self._tested(trained) if name == TESTING else part
            )
        return self._phases[name]

    def _tested(self, trained: DataSet[Example] | None) -> UnlearningData:
        """The test part, and as many questions to keep that were trained on as it has others."""
        test = self.divided.test
        if trained is None or test.retain is None or not self.has_retain:
            return test
        some = replace(trained, rows=evenly(trained.rows, len(test.retain)), notes=())
        return replace(test, probes={**test.probes, TRAINED: some})

    @property
    def _divided_kept(self) -> DataSet[Example] | None:
        """What is to be kept and not for the test, if it is enough to be divided once more."""
        kept = self.divided.search.retain
        few = kept is None or not self.has_retain or len(kept) < LEAST_TO_DIVIDE
        return None if few else kept

    def _kept(self, number: int) -> tuple[DataSet[Example] | None, DataSet[Example] | None]:
        """Of what is to be kept: what is trained on, and what a search measures.

        The latter is as large as the test part.
        """
        kept, share = self._divided_kept, self.settings.test_share
        if kept is None:
            return (self.divided.search.retain,) * 2
        key = (len(kept), number) if number else (len(kept),)
        rng = stream(self.settings.seed, Purpose.FITNESS_BATCHES, *key)
        return divide_set(kept, rng, share / (2 - share))

    @cached_property
    def validation(self) -> Sets:
        """What constants are tuned by: of the rows to forget, those that a search may look at."""
        phase, seen = self.searching, set(self.divided.search.forget.rows)
        rows = [row for row, each in enumerate(phase.examples) if each in seen]
        return Sets(phase.sets.forget.rows(rows), phase.sets.retain)

    @cached_property
    def start(self) -> Progress:
        """The adapter that all trainings of the search begin with."""
        return self.start_of(0)

    def in_parts(
        self, chosen: Sequence[int], work: Callable[[Sequence[int]], list[T]],
        kind: Kind = "trained",
    ) -> list[T]:  # fmt: skip
        """The work on so many at a time; half as many where memory does not do, then half the rows.

        kind: which rows of `Sharing` the work is on; who measures asks for `rows_measured` itself.
        Raises: UserError where memory does not do for one row of one.
        """

        def fewer(count: int) -> None:
            self.sharing = replace(self.sharing, together=count)
            self.say(f"out of memory: {counted(count, 'adapter')} at a time from here on")

        def smaller() -> bool:
            before: int | None = getattr(self.sharing, kind)
            if before == 1:
                return False
            wanted = self.settings.batch if kind == "trained" else self.rows_measured
            count = max(1, (before or wanted) // 2)
            self.sharing = replace(self.sharing, **{kind: count})
            self.say(f"out of memory: {counted(count, 'row')} {_SAID[kind]} at a time from here on")
            return True

        def some(part: Sequence[int]) -> list[T]:
            with rows_at_once(self.sharing.trained if kind == "trained" else None):
                return work(part)

        with _enough_memory(self.settings):
            return in_parts(chosen, self.sharing.together, some, out_of_memory, fewer, smaller)

    @property
    def rows_measured(self) -> int:
        """How many rows go through the model at once where nothing is learnt: no state is kept."""
        return self.sharing.measured or 4 * self.settings.batch

    def start_of(self, number: int) -> Progress:
        """The new adapter of a number."""
        seed = torch_seed(self.settings.seed, Purpose.INITIAL_WEIGHTS, number)
        return begin(self.language.model, self.settings.lora, seed)

    def _made(self, name: str, kept: DataSet[Example] | None, measured: UnlearningData) -> Phase:
        forget = self.problem.data.forget
        encoded = self._encoded(forget)
        trained = padded(encoded, self.language.encoder.pad)
        retained = None
        if kept is not None and self.has_retain:
            retained = padded(self._encoded(kept), self.language.encoder.pad)
        prepared = prepare(measured, self.language.encoder, self.context, self.settings.texts)
        known = self.known.get(name)
        if known is None:
            # Whatever others use: numbers depend on it.
            with self._whole.applied():
                known = self._found_out(trained, retained, prepared, measured)
        sets = Sets(
            Part(trained, known.forget),
            None if retained is None or known.kept is None else Part(retained, known.kept),
        )
        return Phase(
            name, sets.to(self.language.device),
            tuple(forget.rows[each.example] for each in encoded), prepared, known.original,
            known.retain,
        )  # fmt: skip

    def _found_out(
        self, forget: Sequences, kept: Sequences | None, prepared: Prepared,
        measured: UnlearningData,
    ) -> Known:  # fmt: skip
        other = self._retain_model
        retain = None
        if other is not None:
            again = prepare(measured, other.encoder, self.context, self.settings.texts)
            retain = self._measured(other, again, "the retain model")
        original = self._measured(self.language, prepared, "the model")
        self._check_objective(prepared, original, retain)
        return Known(
            self._reference(forget), None if kept is None else self._reference(kept), original,
            retain,
        )  # fmt: skip

    def _reference(self, data: Sequences) -> Tensor:
        def some(_: Sequence[int]) -> list[Tensor]:
            most = self.sharing.measured or REFERENCE_BATCH
            return [self.language.reference(data, min(most, REFERENCE_BATCH))]

        [found] = self.in_parts([0], some, "measured")
        return found

    def _encoded(self, rows: DataSet[Example]) -> tuple[Encoded, ...]:
        return self.language.encoder.encode_set(rows, self.context).rows

    @cached_property
    def _retain_model(self) -> Language | None:
        name = self.problem.retain_model
        return None if name is None else load_language(name, self.device, self.settings.precision)

    def _check_objective(
        self, prepared: Prepared, original: Measured, retain: Measured | None
    ) -> None:
        """Raises: UserError if the objective has no value, whatever a model does."""
        name = self.settings.objective
        reason = missing(prepared, original, retain).get(name)
        if reason and self.problem.data.retain is None:
            reason += " (--retain says what is; with --forget-only it is measured, not trained on)"
        if reason:
            raise UserError(f"objective '{name}' cannot be measured: {reason}")

    def _measured(self, language: Language, prepared: Prepared, which: str) -> Measured:
        @torch.no_grad()
        def some(_: Sequence[int]) -> list[Measured | Failed]:
            return measure(language.model, language.encoder, prepared, batch=self.rows_measured)

        [found] = self.in_parts([0], some, "measured")
        if isinstance(found, Failed):
            raise UserError(f"{which} '{language.name}' cannot be measured: {found.reason}")
        return found


@contextmanager
def _enough_memory(settings: UnlearnSettings) -> Iterator[None]:
    """Raises: UserError where memory does not do for what is done within it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with a single row: give a smaller --context (now {settings.context}) "
            "or a smaller model"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what the error says; torch has a type of its own for GPUs only."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text or "cannot allocate" in text
    )
