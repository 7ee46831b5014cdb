"""Members share generations by what their losses are worth, and none of them is ever starved."""

from dataclasses import replace

import numpy as np
import pytest
from llm_server import Scripted, Server, losses

from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Call, Const, check, walk
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING, UNLEARNING_TOKENS
from evoloss.propose.evolution import Evolution, RandomSearch
from evoloss.propose.llm import Endpoint, LLMProposer
from evoloss.propose.mixture import Mixture
from evoloss.propose.proposer import Individual, Proposal, Space
from evoloss.propose.unlearning import UnlearningEvolution

POPULATION = 20


def space(population=POPULATION, **changes):
    usual = parse("mean(log_probs_forget)", UNLEARNING)
    return replace(
        Space(
            population=population, parsimony=1.4, retries=2, usual=usual, seeded=False,
            output="identity", random=lambda g, s: np.random.default_rng((7, g, s)),
            avoid=lambda expr, epochs=None, rate=1.0: False, signature=UNLEARNING,
        ),
        **changes,
    )  # fmt: skip


class Drawing:
    """A member whose losses are as many as it is able to make; each has a constant of its own."""

    def __init__(self, space, most=POPULATION):
        self.space, self.most = space, most
        self.asked, self.told = [], []

    def ask(self, generation, count=None):
        self.asked.append((generation, count))
        drawn = [
            self.space.random(generation, slot).random() for slot in range(min(count, self.most))
        ]
        return [Proposal(_multiple(each), "drawn") for each in drawn]

    def tell(self, generation, results):
        self.told.append([each.id for each in results])


def _multiple(factor):
    return Call("mul", (Const(float(factor)), parse("mean(log_probs_forget)", UNLEARNING)))


def people(proposals, error_of, first):
    return [
        Individual(first + n, each.expression, error_of(each), operator=each.operator)
        for n, each in enumerate(proposals)
    ]


def run(mixture, error_of, generations, begin=0):
    """Lets a mixture search. Returns what it proposed, and what it was told, by generation."""
    history = []
    for generation in range(begin, generations):
        proposals = mixture.ask(generation)
        told = people(proposals, error_of(generation), POPULATION * generation)
        mixture.tell(generation, told)
        history.append((proposals, told))
    return history


def share(proposals, name):
    return sum(each.operator.startswith(name) for each in proposals)


def only(good):
    """Errors that fall from generation to generation for one member, and stay bad for others."""

    def error_of(generation):
        return lambda each: 1.0 / (generation + 2) if each.operator.startswith(good) else 1.0

    return error_of


@pytest.mark.parametrize("good", ["one", "two"])
def test_the_better_member_gets_most_of_it_and_the_other_keeps_its_floor(good):
    mixture = Mixture(space(), {"one": Drawing, "two": Drawing})
    history = run(mixture, only(good), 15)
    shares = [share(proposals, good) for proposals, _ in history]
    assert all(len(proposals) == POPULATION for proposals, _ in history)
    assert all(2 <= each <= POPULATION - 2 for each in shares)
    assert np.mean(shares[-5:]) > 0.8 * POPULATION
    assert np.mean(shares[:2]) < 0.75 * POPULATION


def test_it_notices_when_another_member_becomes_the_better_one():
    mixture = Mixture(space(), {"one": Drawing, "two": Drawing})

    def error_of(generation):
        return only("one" if generation < 8 else "two")(generation)

    history = run(mixture, error_of, 20)
    assert np.mean([share(proposals, "one") for proposals, _ in history[5:8]]) > 12
    assert np.mean([share(proposals, "two") for proposals, _ in history[-3:]]) > 12


def test_failures_copies_and_given_losses_are_no_success():
    given = space().usual
    members = {"failing": Drawing, "copying": Drawing, "given": Drawing, "good": Drawing}
    mixture = Mixture(space(), members)
    mixture.tell(0, [
        Individual(0, _multiple(0.5), 0.5, operator="copying x"),
        Individual(1, _multiple(0.7), 0.3, operator="good x"),
    ])  # fmt: skip
    assert mixture.evidence["good"][0] == 1.0
    before, shares = dict(mixture.evidence), mixture.shares(1)
    mixture.tell(1, [
        Individual(2, _multiple(0.6), None, operator="failing x"),
        Individual(3, _multiple(0.61), float("nan"), operator="failing x"),
        Individual(4, _multiple(0.5), 0.1, operator="copying x"),
        Individual(5, given, 0.1, operator="given known loss"),
        Individual(6, _multiple(0.8), 0.35, operator="good x"),
        Individual(7, _multiple(0.9), 0.5, operator="good x"),
    ])  # fmt: skip
    wins = {name: good - 0.8 * before[name][0] for name, (good, _) in mixture.evidence.items()}
    assert wins == pytest.approx({"failing": 0.0, "copying": 0.0, "given": 0.0, "good": 1.0})
    lost = {name: bad - 0.8 * before[name][1] for name, (_, bad) in mixture.evidence.items()}
    assert lost["given"] == pytest.approx(shares["given"] - 1)
    assert lost["failing"] == pytest.approx(max(shares["failing"], 2))


def test_what_a_member_cannot_fill_is_made_by_the_others_and_is_new():
    members = {"dead": lambda s: Drawing(s, most=0), "lame": lambda s: Drawing(s, most=2),
               "sound": Drawing}  # fmt: skip
    mixture = Mixture(space(), members)
    for generation, (proposals, _) in enumerate(run(mixture, only("nobody"), 6)):
        assert len(proposals) == POPULATION
        assert len({each.expression for each in proposals}) == POPULATION
        assert share(proposals, "dead") == 0
        assert mixture.members["dead"].asked[generation][1] >= 2
    assert mixture.shares(6)["dead"] <= mixture.shares(6)["sound"] + 6


def test_a_dead_members_share_falls_to_its_floor():
    members = {"dead": lambda s: Drawing(s, most=0), "sound": Drawing}
    mixture = Mixture(space(), members)
    run(mixture, only("sound"), 10)
    assert np.mean([mixture.shares(generation)["dead"] for generation in range(10, 20)]) < 4


def test_none_at_all_is_no_error():
    mixture = Mixture(space(), {"dead": lambda s: Drawing(s, most=0)})
    assert mixture.ask(0) == ()
    mixture.tell(0, [])


def test_members_have_random_streams_of_their_own():
    mixture = Mixture(space(), {"one": Drawing, "two": Drawing})
    proposals = mixture.ask(0)
    assert len({each.expression for each in proposals}) == POPULATION


def test_everybody_is_told_everything():
    mixture = Mixture(space(), {"one": Drawing, "two": Drawing})
    (_, told), *_ = run(mixture, only("one"), 1)
    for member in mixture.members.values():
        assert member.told == [[each.id for each in told]]


def test_told_the_stored_generations_it_asks_the_same():
    members = {"gp": Evolution, "random": RandomSearch}

    def error_of(generation):
        return lambda each: 1.0 / (1.0 + len(canonical_text(each.expression)))

    whole = Mixture(space(), members)
    history = run(whole, error_of, 6)
    for stop in range(1, 6):
        resumed = Mixture(space(), members)
        for generation, (_, told) in enumerate(history[:stop]):
            resumed.tell(generation, told)
        again = run(resumed, error_of, 6, begin=stop)
        assert [proposals for proposals, _ in again] == [p for p, _ in history[stop:]]
        assert resumed.evidence == whole.evidence


def test_fewer_slots_than_members():
    mixture = Mixture(space(population=2), {"a": Drawing, "b": Drawing, "c": Drawing})
    assert len(mixture.ask(0)) == 2


@pytest.mark.parametrize("members", [{}, {"two words": Drawing}])
def test_members_that_cannot_be_told_apart(members):
    with pytest.raises(ValueError, match="one word"):
        Mixture(space(), members)


@pytest.mark.parametrize("gp", [Evolution, UnlearningEvolution])
def test_genetic_programming_crosses_losses_of_the_model_and_the_model_refines_its(gp):
    told, kept = [], []
    numbers = iter(range(1, 1000))

    def reply(number, request):
        return Scripted(losses(*(next(numbers) + 0.123 for _ in range(5))))

    with Server(reply) as server:
        endpoint = Endpoint(server.url, "tiny", timeout=5.0)
        mixture = Mixture(
            space(save=kept.append),
            {"gp": gp, "llm": lambda s: LLMProposer(s, endpoint, told.append)},
        )
        first = mixture.ask(0)
        ids = dict(enumerate(first))
        written = [n for n, each in ids.items() if each.operator == "llm"]
        grown = [n for n, each in ids.items() if each.operator == "gp initial"]
        assert written
        assert grown
        best = {written[0], grown[0]}
        mixture.tell(0, people(first, lambda each: 0.1 if _place(first, each) in best else 1.0, 0))
        second = [each for generation in range(1, 10) for each in mixture.ask(generation)]
    crossed = [each for each in second if each.operator == "gp crossover"]
    assert any(set(each.parents) & set(written) for each in crossed)
    assert any(_marked(each.expression) for each in crossed)
    refined = [each for each in second if each.operator == "llm refinement"]
    assert any(each.parents == (grown[0],) for each in refined)
    for each in second:
        level = each.operator == "gp level"
        check(each.expression, UNLEARNING_TOKENS if level else UNLEARNING)
    assert not told
    assert {record["kind"] for record in kept} == {"llm"}


def _place(proposals, wanted):
    return next(n for n, each in enumerate(proposals) if each is wanted)


def _marked(expression):
    """Whether it holds a constant that only the model writes."""
    return any(
        isinstance(node, Const) and f"{node.value:.3f}".endswith(".123")
        for node in walk(expression)
    )


def test_the_model_is_out_and_the_others_carry_on():
    told = []
    with Server([Scripted(body=b"", status=503)]) as server:
        endpoint = Endpoint(server.url, "tiny", retries=0)
        mixture = Mixture(
            space(), {"llm": lambda s: LLMProposer(s, endpoint, told.append), "gp": Evolution}
        )
        history = run(mixture, only("gp"), 4)
    assert all(share(proposals, "gp") == POPULATION for proposals, _ in history)
    assert len(told) == 1


def test_a_part_of_a_generation_is_the_beginning_of_the_first_and_the_end_of_later_ones():
    others = tuple(_multiple(n) for n in (2, 3))
    for make in (Evolution, RandomSearch):
        proposer = make(space(seeded=True, known=others))
        whole = proposer.ask(0)
        assert [each.operator for each in whole[:4]] == [
            "usual loss", "known loss", "known loss", "initial",
        ]  # fmt: skip
        assert len(whole) == POPULATION
        assert proposer.ask(0, 3) == whole[:3]
    evolution = Evolution(space())
    evolution.tell(0, people(evolution.ask(0), lambda each: 0.5, 0))
    whole = evolution.ask(1)
    assert whole[0].operator == "elite"
    assert evolution.ask(1, 4) == whole[-4:]
    assert evolution.ask(1, POPULATION) == whole


def test_parents_of_a_part_are_the_last_generation_and_the_best_from_before():
    evolution = Evolution(space())
    evolution.tell(0, [Individual(n, _multiple(n), float(n)) for n in range(10)])
    evolution.tell(1, [Individual(10 + n, _multiple(10 + n), None) for n in range(10)])
    parents = {parent for each in evolution.ask(2, 15) for parent in each.parents}
    assert 0 in parents
    assert parents <= {0, *range(10, 20)}
    whole = {parent for each in evolution.ask(2) for parent in each.parents}
    assert 0 not in whole
