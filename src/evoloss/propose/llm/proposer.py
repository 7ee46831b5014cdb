"""A language model as a proposer: first losses from nothing, then better ones from the best.

After EvoMU (Batorski and Swoboda, arXiv 2602.02139), which asks for 10 losses and refines the best
few. Here each sample asks for a few losses and gets a direction of its own, so that samples differ;
the children of a generation are divided among the best five losses of the whole search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Expr
from evoloss.lang.reader import Read, Refused, read
from evoloss.lang.text import to_text
from evoloss.lang.types import Signature
from evoloss.propose.llm import prompts
from evoloss.propose.llm.client import Answer, Client
from evoloss.propose.llm.connection import Call, Messages, Prompt, seed_of
from evoloss.propose.llm.endpoint import Endpoint, Usage
from evoloss.propose.llm.evidence import is_finished, is_scored
from evoloss.propose.llm.records import READING, call_record, calls_made
from evoloss.propose.proposer import Individual, Member, Proposal, Space
from evoloss.wording import counted

PARENTS = 5
"""The best so many are refined."""
WAVES = 2
"""How often a generation's missing losses are asked for, with what was refused in the prompt."""
SHOWN = 4
"""Failures, children and other good losses that a prompt shows, of each at most so many."""
SLOT = 1 << 20
"""Where the slots of its random streams begin, past those of a proposer that fills in."""
_SAMPLES = 1 << 10


@dataclass(frozen=True)
class _Request:
    """A prompt for so many losses; parent: the id of the one to refine."""

    prompt: Prompt
    number: int
    parent: int | None


@dataclass(frozen=True)
class _Found:
    """A loss of a reply, what tells it from others, whether it is among the number asked for."""

    proposal: Proposal
    form: str
    asked: bool


class LLMProposer:
    """Asks an endpoint for losses; whatever state that is in, `ask` returns.

    tell_user: told in one line when losses are missing, and why; not again while that lasts.
    fallback: proposes what is missing. spent: what a resumed search had used, see `usage_of`.
    """

    def __init__(
        self,
        space: Space,
        endpoint: Endpoint,
        tell_user: Callable[[str], None],
        *,
        fallback: Member | None = None,
        spent: Usage | None = None,
    ) -> None:
        self.space = space
        self.endpoint = endpoint
        self.tell_user = tell_user
        self.fallback = fallback
        self.client = Client(endpoint, spent, calls_made(space.saved, endpoint.model))
        self.people: dict[int, Individual] = {}
        self._down = False
        self._told = ""
        self._prompt(prompts.Order(space.signature, 1, "", None), None, ())  # refuses what it must

    def ask(self, generation: int, count: int | None = None) -> Sequence[Proposal]:
        """Losses that are new, as many as the model wrote, and the fallback's for the rest."""
        wanted = self.space.population if count is None else count
        proposals, reason = self._written(generation, wanted)
        if used_up := self.client.budget.used_up():
            budget, limit, used = used_up
            self.space.keep({"kind": "budget", "budget": budget, "limit": limit, "used": used})
        missing = wanted - len(proposals)
        others: Sequence[Proposal] = ()
        if missing and self.fallback is not None:
            others = self.fallback.ask(generation, missing)
        if not missing:
            self._told = ""
        elif reason != self._told:
            self._told = reason
            rest = f"; {counted(len(others), 'is', 'are')} made without it" if others else ""
            self.tell_user(
                f"{self.endpoint.model} wrote {len(proposals)} of "
                f"{counted(wanted, 'loss', 'losses')}: {reason}{rest}"
            )
        return (*proposals, *others)

    def tell(self, generation: int, results: Sequence[Individual]) -> None:
        """Everything that was tried is material for prompts."""
        self.people.update((each.id, each) for each in results)
        if self.fallback is not None:
            self.fallback.tell(generation, results)

    def _written(self, generation: int, wanted: int) -> tuple[list[Proposal], str]:
        """New losses, and why they are fewer than wanted."""
        found: list[_Found] = []
        refused: list[str] = []
        reason = "no reply"
        for wave in range(WAVES):
            missing = wanted - len(_chosen(found, wanted))
            if not missing:
                break
            requests = self._requests(generation, wave, missing, refused)
            answers = self._answers(generation, wave, requests)
            for request, answer in zip(requests, answers, strict=True):
                found += self._read(generation, wave, request, answer, refused)
            reason = _why(answers, refused)
            if not any(each.text for each in answers):
                break
        return _chosen(found, wanted), reason

    def _answers(self, generation: int, wave: int, requests: Sequence[_Request]) -> list[Answer]:
        """The endpoint's answers, each call saved as soon as it is over: it may have been paid.

        After a round without any, one prompt alone tries it again.
        """
        by_sample = {each.prompt.sample: each for each in requests}

        def save(call: Call) -> None:
            request = by_sample[call.sample]
            place = {"generation": generation, "wave": wave, "parent": request.parent}
            self.space.save(call_record(call, self.endpoint, **place, wanted=request.number))

        wanted = [each.prompt for each in requests]
        first = self.client.ask(wanted[:1], retries=0, arrived=save) if self._down else []
        if first and not first[0].text:
            return [*first, *(Answer("", first[0].reason, ()) for _ in wanted[1:])]
        answers = [*first, *self.client.ask(wanted[len(first) :], arrived=save)]
        self._down = not any(each.text for each in answers)
        return answers

    def _requests(
        self, generation: int, wave: int, wanted: int, refused: Sequence[str]
    ) -> list[_Request]:
        """What to ask for: children of the best, or first losses while there is nothing better."""
        slots = SLOT + wave * _SAMPLES
        ranked = self._ranked()
        directions = prompts.CHANGES if ranked else prompts.hints(self.space.signature)
        order = self.space.random(generation, slots).permutation(len(directions))
        found = []
        for index, (parent, number) in enumerate(self._shares(ranked, wanted)):
            hint = directions[order[index % len(directions)]]
            wish = prompts.Order(
                self._signature(parent), number, hint, self.space.most_epochs, self.space.goal
            )
            messages = self._prompt(wish, parent, refused)
            rng, same = (self.space.random(generation, slots + 1 + index) for _ in range(2))
            prompt = Prompt(messages, rng, seed_of(same))
            found.append(_Request(prompt, number, parent.id if parent else None))
        return found

    def _shares(
        self, ranked: Sequence[Individual], wanted: int
    ) -> Iterable[tuple[Individual | None, int]]:
        """Parents with the number of children in a sample; the better ones get what is over."""
        parents: Sequence[Individual | None] = ranked[:PARENTS] or (None,)
        for place, parent in enumerate(parents):
            children = wanted // len(parents) + (place < wanted % len(parents))
            samples = math.ceil(children / self.endpoint.losses_per_sample)
            for sample in range(samples):
                yield parent, children // samples + (sample < children % samples)

    def _prompt(
        self, order: prompts.Order, parent: Individual | None, refused: Sequence[str]
    ) -> Messages:
        """The messages for a parent, or for first losses."""
        latest = [each for each in self.people.values() if not is_finished(each)][::-1]
        latest.sort(key=is_scored)  # those that failed before those that were stopped early
        if parent is None:
            known = self.space.known[:SHOWN]
            return prompts.first(order, known, latest[:SHOWN], refused[-SHOWN:])
        ranked = list(filter(is_finished, self._ranked()))
        children = [each for each in ranked if parent.id in each.parents]
        others = [each for each in ranked if each is not parent and each not in children]
        related = {parent.id, *parent.parents}
        failed = sorted(
            (each for each in latest if each is not parent),
            key=lambda each: related.isdisjoint(each.parents),
        )
        return prompts.refinement(
            order, parent, children[:SHOWN], others[:SHOWN], failed[:SHOWN], refused[-SHOWN:]
        )

    def _signature(self, parent: Individual | None) -> Signature:
        """What is written: losses of tokens where the parent is one."""
        return self.space.signature_of(*([] if parent is None else [parent.expression]))

    def _ranked(self) -> list[Individual]:
        """Everything with a score, the best first, each expression once."""
        scored = sorted(filter(is_scored, self.people.values()), key=lambda e: (e.error, e.id))
        best: dict[Expr, Individual] = {}
        for each in scored:
            best.setdefault(each.expression, each)
        return list(best.values())

    def _read(
        self, generation: int, wave: int, request: _Request, answer: Answer, refused: list[str]
    ) -> list[_Found]:
        """The losses of an answer that were not seen before; what was read is kept."""
        space = self.space
        found: list[_Found] = []
        accepted: list[tuple[Read, bool]] = []
        not_read: list[Refused] = []
        operator = "llm" if request.parent is None else "llm refinement"
        parents = () if request.parent is None else (request.parent,)
        parent = None if request.parent is None else self.people[request.parent]
        # A model is not asked about learning rates: a child is trained at its parent's.
        rate = 1.0 if parent is None else parent.rate
        for each in read(answer.text, self._signature(parent)) if answer.text else ():
            if isinstance(each, Refused):
                not_read.append(each)
                refused.append(f"line {each.line}: {each.reason}")
                continue
            epochs = space.most_epochs and min(each.epochs, space.most_epochs)
            seen = space.avoid(each.expression, epochs, rate)
            accepted.append((each, seen))
            if not seen:
                proposal = Proposal(each.expression, operator, parents, epochs, rate)
                form = f"{canonical_text(each.expression)} for {epochs} epochs"
                found.append(_Found(proposal, form, asked=len(found) < request.number))
        if answer.text:
            self._keep(generation, wave, request, accepted, not_read)
        return found

    def _keep(
        self,
        generation: int,
        wave: int,
        request: _Request,
        accepted: Sequence[tuple[Read, bool]],
        refused: Sequence[Refused],
    ) -> None:
        """What was read in the last reply of a sample."""
        losses = [
            {"name": each.name, "line": each.line, "epochs": each.epochs,
             "loss": to_text(each.expression), "seen": seen}
            for each, seen in accepted
        ]  # fmt: skip
        refusals = [{"name": e.name, "line": e.line, "reason": e.reason} for e in refused]
        self.space.keep({
            "kind": READING, "generation": generation, "wave": wave,
            "sample": request.prompt.sample, "accepted": losses, "refused": refusals,
        })  # fmt: skip


def _chosen(found: Sequence[_Found], wanted: int) -> list[Proposal]:
    """The first so many that differ; what a sample wrote beyond its number comes last."""
    unlike: dict[str, Proposal] = {}
    for each in sorted(found, key=lambda each: not each.asked):
        unlike.setdefault(each.form, each.proposal)
    return list(unlike.values())[:wanted]


def _why(answers: Sequence[Answer], refused: Sequence[str]) -> str:
    """The first reason why losses are missing."""
    for answer in answers:
        if answer.reason:
            return answer.reason
    if refused:
        return f"functions were refused, the last for: {refused[-1]}"
    return "the rest were no functions, or seen before"
