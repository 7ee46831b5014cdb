"""Everything a search has seen: who is a duplicate of whom, who is best, the Pareto front."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from evoloss.discovery.candidate import Candidate, Fate, Summary
from evoloss.discovery.leaders import Leaders
from evoloss.discovery.loop_settings import LoopSettings
from evoloss.discovery.recent import Recent
from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Expr, complexity
from evoloss.lang.text import to_text
from evoloss.lang.weights import bind
from evoloss.store.history import History

Fingerprint = Callable[[Expr], str | None]


class Archive:
    """Grows by whole generations; rebuilt from the stored summaries on resume.

    fingerprint: a key that losses with the same gradients share, None for one without any.
    history: what keeps the candidates themselves, a list unless a store does.
    """

    def __init__(
        self, settings: LoopSettings, fingerprint: Fingerprint,
        history: list[Candidate] | History | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.fingerprint = fingerprint
        self.history = [] if history is None else history
        self.fates: Counter[Fate] = Counter()
        self.steps = 0
        self.leaders = Leaders(settings.finalists)
        self._by_form: dict[bytes, int] = {}
        self._by_untuned_gradient: dict[bytes, int] = {}
        self._by_tuned_gradient: dict[bytes, int] = {}
        self._begin: list[int] = []
        self._worst = array("d")
        self._best: Candidate | None = None
        # Of the generation in work, which asks for the same ones again and again.
        self._forms: Recent[str] = Recent()
        self._gradients: Recent[str | None] = Recent()

    def form(self, expr: Expr, epochs: int | None = None, rate: float = 1.0) -> str:
        """What makes two proposals duplicates: equal canonical form, or only equal text."""
        write = canonical_text if self.settings.canonical else to_text
        return _trained(self._forms.of(expr, find=lambda: write(expr)), epochs, rate)

    def seen(self, expr: Expr, epochs: int | None = None, rate: float = 1.0) -> bool:
        """Whether there was such a candidate."""
        return _digest(self.form(expr, epochs, rate)) in self._by_form

    def duplicate_of(self, form: str) -> int | None:
        """The id of the first candidate of a form."""
        return self._by_form.get(_digest(form))

    def untuned_equivalent_of(self, candidate: Candidate) -> int | None:
        """The id of the first one whose unweighted expression has the gradients of this one's."""
        return self._equivalent(self._by_untuned_gradient, candidate, tuned=False)

    def tuned_equivalent_of(self, candidate: Candidate) -> int | None:
        """The id of the first candidate whose tuned loss has the gradients of this one's."""
        return self._equivalent(self._by_tuned_gradient, candidate, tuned=True)

    def _equivalent(self, seen: dict[bytes, int], candidate: Candidate, tuned: bool) -> int | None:
        if not self.settings.equivalence:
            return None
        key = self._gradient(candidate, tuned)
        return None if key is None else seen.get(key)

    def _gradient(self, candidate: Candidate, tuned: bool) -> bytes | None:
        """A digest of the gradients and of how long and at which rate is trained with them."""
        expression, phi = candidate.expression, candidate.phi if tuned else None
        found = self._gradients.of(
            expression, phi,
            find=lambda: self.fingerprint(expression if phi is None else bind(expression, phi)),
        )  # fmt: skip
        return _digest(_trained(found, candidate.epochs, candidate.rate)) if found else None

    def summary(self, candidate: Candidate) -> Summary:
        """What is remembered of a candidate."""
        untuned = tuned = None
        if candidate.same_as is None and self.settings.equivalence:
            untuned = self._gradient(candidate, tuned=False)
            broke_down = candidate.fate is Fate.FAILED and candidate.phi is None
            if not broke_down or self.settings.local_search == "none":
                tuned = self._gradient(candidate, tuned=True)
        return Summary(
            candidate.id, candidate.generation, candidate.fate, candidate.error, candidate.steps,
            _digest(candidate.canonical), complexity(candidate.expression), untuned, tuned,
        )  # fmt: skip

    def extend(
        self, candidates: Sequence[Candidate], summaries: Iterable[Summary] | None = None
    ) -> None:
        """Takes a finished generation in. summaries: where they are known already."""
        self._forms.forget()
        self._gradients.forget()
        self.history.extend(candidates)
        self.restore(map(self.summary, candidates) if summaries is None else summaries)

    def restore(self, summaries: Iterable[Summary]) -> None:
        """Remembers candidates that are in the history."""
        worst = self._worst[-1] if self._worst else -math.inf
        for each in summaries:
            if each.generation == len(self._begin):
                self._begin.append(each.id)
            self.fates[each.fate] += 1
            self.steps += each.steps
            if each.fate is Fate.SCORED:
                self.leaders.add(each)
                worst = max(worst, each.error or 0.0)
            self._worst.append(worst)
            self._by_form.setdefault(each.form, each.id)
            if each.untuned is not None:
                self._by_untuned_gradient.setdefault(each.untuned, each.id)
            if each.tuned is not None:
                self._by_tuned_gradient.setdefault(each.tuned, each.id)

    @property
    def best(self) -> Candidate | None:
        """The best scored candidate; None while there is none."""
        if not self.leaders.best:
            return None
        id = self.leaders.best[0].id
        if self._best is None or self._best.id != id:
            self._best = self.history[id]
        return self._best

    @property
    def leading(self) -> list[Candidate]:
        """The finalists, best first, and after them the rest of the Pareto front."""
        ids = [each.id for each in (*self.leaders.best, *self.leaders.front)]
        return [self.history[id] for id in dict.fromkeys(ids)]

    def generation(self, number: int) -> Sequence[Candidate]:
        """The candidates of a finished generation."""
        begin = self._begin[number]
        end = self._begin[number + 1] if number + 1 < len(self._begin) else len(self.history)
        return self.history[begin:end]

    def original(self, candidate: Candidate) -> Candidate:
        """The candidate whose trainings gave this one its result."""
        while candidate.same_as is not None:
            candidate = self.history[candidate.same_as]
        return candidate

    def standing(self, generation: Sequence[Candidate]) -> dict[int, float | None]:
        """What selection compares, by id, within a generation and across them: errors.

        Who left the race has none that compares: it is worse than all scored so far, and the less
        so the later and lower it left.
        """
        originals = {each.id: self.original(each) for each in generation}
        standing = {id: found.error for id, found in originals.items()}
        worst = self._worst[max(originals)] if originals else 0.0
        worst = worst if math.isfinite(worst) else 0.0
        raced = [id for id, found in originals.items() if found.fate is Fate.RACED_OUT]
        raced.sort(key=lambda id: (-originals[id].steps, standing[id] or 0.0, id))
        return standing | {id: worst + place for place, id in enumerate(raced, start=1)}


def _trained(key: str, epochs: int | None, rate: float) -> str:
    """The key of a loss and of how is trained with it."""
    key = key if epochs is None else f"{key} for {epochs} epochs"
    return key if rate == 1.0 else f"{key} at {rate:g} times the rate"


def _digest(key: str) -> bytes:
    """Texts of any length in 16 bytes, which no two share by chance."""
    return blake2b(key.encode(), digest_size=16).digest()


def pareto(errors: Sequence[tuple[Candidate, float]]) -> list[Candidate]:
    """Those that no other beats in both error and complexity, simplest first."""
    front: list[Candidate] = []
    lowest = float("inf")
    for candidate, error in sorted(
        errors, key=lambda pair: (complexity(pair[0].expression), pair[1], pair[0].id)
    ):
        if error < lowest:
            front.append(candidate)
            lowest = error
    return front
