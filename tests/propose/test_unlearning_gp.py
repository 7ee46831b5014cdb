"""Breeding of unlearning losses: well typed, within bounds, and nothing good is thrown away."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_server import Scripted, Server, answer

from evoloss.lang import zoo
from evoloss.lang.canonical import canonical_text
from evoloss.lang.expr import Const, check, height, inputs_of, walk
from evoloss.lang.screening import fault
from evoloss.lang.text import to_text
from evoloss.lang.types import (
    UNLEARNING,
    UNLEARNING_FORGET,
    UNLEARNING_FORGET_TOKENS,
    UNLEARNING_TOKENS,
)
from evoloss.lang.weights import with_constants
from evoloss.propose.levels import other_level
from evoloss.propose.llm import Endpoint, LLMProposer
from evoloss.propose.mixture import Mixture
from evoloss.propose.proposer import Individual, Space
from evoloss.propose.unlearning import (
    LARGER_RATE,
    UnlearningEvolution,
    UnlearningRandom,
    UnlearningZoo,
    random_loss,
)
from evoloss.propose.variation import RATES

KNOWN = {name: zoo.loss(name) for name in zoo.names("unlearning")}
FORGET_ONLY = {name: zoo.loss_among(zoo.FORGET_TERMS, name) for name in zoo.FORGET_TERMS}
MOST = 5


def own(loss, retain=True):
    """The signature that a loss must be of."""
    masked = inputs_of(loss) & {"mask_forget", "mask_retain"}
    if not retain:
        return UNLEARNING_FORGET_TOKENS if masked else UNLEARNING_FORGET
    return UNLEARNING_TOKENS if masked else UNLEARNING


def space(seed=0, retain=True, **changes):
    known = KNOWN if retain else FORGET_ONLY
    given = Space(
        population=8, parsimony=1.4, retries=5, usual=known["grad-diff" if retain else "ga"],
        seeded=True, output="identity", random=lambda g, s: np.random.default_rng((seed, g, s)),
        avoid=lambda loss, epochs=None, rate=1.0: fault(loss, own(loss, retain)) is not None,
        signature=UNLEARNING if retain else UNLEARNING_FORGET, known=tuple(known.values()),
        most_epochs=MOST,
    )  # fmt: skip
    return replace(given, **changes)


def told(proposals, errors, first=0):
    return [
        Individual(first + n, each.expression, error, each.epochs, each.operator, each.parents,
                   rate=each.rate)
        for n, (each, error) in enumerate(zip(proposals, errors, strict=True))
    ]  # fmt: skip


def texts(proposals):
    return [(to_text(each.expression), each.epochs, each.rate) for each in proposals]


def valid(proposal, retain=True):
    loss = proposal.expression
    check(loss, own(loss, retain))
    assert "log_probs_forget" in inputs_of(loss)
    assert height(loss) <= 10
    assert 1 <= proposal.epochs <= MOST
    assert min(RATES) <= proposal.rate <= max(RATES)


@pytest.mark.parametrize("retain", [True, False])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_generations_are_losses_of_the_signature(retain, seed):
    proposer = UnlearningEvolution(space(seed, retain))
    rng = np.random.default_rng(seed)
    number = 0
    for generation in range(4):
        proposals = proposer.ask(generation)
        assert len(proposals) == 8
        for each in proposals:
            valid(each, retain)
            assert all(parent < number for parent in each.parents)
        proposer.tell(generation, told(proposals, rng.random(8), number))
        number += 8


def test_without_a_retain_set_it_begins_with_the_forget_terms():
    first = UnlearningEvolution(space(retain=False)).ask(0)
    known = [each for each in first if each.operator.endswith("known loss")]
    assert [first[0].expression, *(each.expression for each in known)] == [*FORGET_ONLY.values()]


def test_it_begins_with_what_is_known_for_as_long_as_there_may_be():
    first = UnlearningEvolution(space()).ask(0)
    assert first[0].expression == KNOWN["grad-diff"]
    assert {each.expression for each in first} == set(KNOWN.values())
    assert {(each.epochs, each.rate) for each in first} == {(MOST, 1.0)}
    assert [each.operator for each in first] == ["usual loss"] + ["known loss"] * 7
    unseeded = UnlearningEvolution(space(seeded=False)).ask(0)
    assert {each.operator for each in unseeded} == {"initial"}
    assert len(UnlearningEvolution(space(population=12)).ask(0)) == 12


@given(st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_random_loss_has_a_term_for_each_set(seed):
    proposer = UnlearningRandom(space())
    loss = random_loss(proposer.settings, np.random.default_rng(seed))
    check(loss, UNLEARNING)
    assert {"log_probs_forget", "log_probs_retain"} <= inputs_of(loss)
    alone = random_loss(UnlearningRandom(space(retain=False)).settings, np.random.default_rng(seed))
    check(alone, UNLEARNING_FORGET)
    assert "log_probs_forget" in inputs_of(alone)


def test_what_is_to_be_avoided_is_drawn_again():
    made = [
        each
        for seed in range(10)
        for each in UnlearningRandom(space(seed, seeded=False, retries=20)).ask(0)
    ]
    good = sum(fault(each.expression, UNLEARNING) is None for each in made)
    blind = [
        each
        for seed in range(10)
        for each in UnlearningRandom(space(seed, seeded=False, retries=0)).ask(0)
    ]
    assert good > 0.9 * len(made)
    assert sum(fault(each.expression, UNLEARNING) is None for each in blind) < 0.6 * len(blind)


def test_random_search_learns_nothing():
    one, other = UnlearningRandom(space(5)), UnlearningRandom(space(5))
    first = one.ask(0)
    one.tell(0, told(first, range(8)))
    assert texts(one.ask(1)) == texts(other.ask(1))
    assert {each.operator for each in other.ask(1)} == {"initial"}


# Children


def children(parents, count=200, **changes):
    """Of parents that were told, the best first."""
    proposer = UnlearningEvolution(space(population=count, seeded=False, retries=0, **changes))
    proposer.tell(0, [replace(each, id=n, error=float(n)) for n, each in enumerate(parents)])
    return proposer.ask(1)


def person(name, epochs=3, rate=1.0):
    return Individual(0, KNOWN[name], 0.0, epochs, rate=rate)


def test_children_are_made_in_every_way():
    parents = [person("npo"), person("grad-diff", rate=2.0)]
    by_way = {}
    for each in children(parents):
        by_way.setdefault(each.operator, []).append(each)
        valid(each)
    assert by_way.keys() == {"crossover", "mutation", "varied", "level"}
    expressions = [each.expression for each in parents]
    structures = [without_constants(each) for each in expressions]
    assert {without_constants(each.expression) for each in by_way["varied"]} == set(structures)
    assert len(by_way["varied"]) > 100
    assert all(len(set(each.parents)) == 2 for each in by_way["crossover"])
    for way in ("crossover", "mutation"):
        new = [each for each in by_way[way] if each.expression not in expressions]
        assert len(new) > len(by_way[way]) / 2
        for each in by_way[way]:
            assert each.rate == parents[each.parents[0]].rate
    assert all(each.parents[0] in (0, 1) for each in by_way["mutation"])


def test_the_best_structure_is_varied_most():
    found = children([person("npo"), person("grad-diff"), person("sim-npo")], 600)
    first = [each.parents[0] for each in found if each.operator == "varied"]
    shares = [first.count(n) / len(first) for n in range(3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.08)


@pytest.mark.parametrize("where", ["metrics", "at_rung"])
def test_known_losses_that_kept_enough_are_tried_at_a_larger_rate_once(where):
    proposer = UnlearningEvolution(space())
    names = ("sim-npo", "ce-u")

    def fared(each):
        kept = 0.8 if each.expression in [KNOWN[name] for name in names] else 0.3
        return replace(each, details={where: {"forgetting": 0.9, "utility_kept": kept}})

    def once_more(generation):
        return [each for each in proposer.ask(generation) if each.operator == "known loss"]

    first = told(proposer.ask(0), [0.1 * n for n in range(8)])
    proposer.tell(0, [fared(each) for each in first])
    again = once_more(1)
    assert {each.expression for each in again} == {KNOWN[name] for name in names}
    assert {each.rate for each in again} == {LARGER_RATE}
    by_id = {each.id: each for each in first}
    assert all(by_id[each.parents[0]].expression == each.expression for each in again)
    proposer.tell(1, [fared(each) for each in told(again, [0.9, 0.8], first=8)])
    assert not once_more(2)


def test_what_is_good_on_the_other_level_is_tried_at_a_larger_rate_once():
    proposer = UnlearningEvolution(space())
    kept = {"metrics": {"forgetting": 0.5, "utility_kept": 0.9}}
    people = [replace(person("ce-u"), id=0), replace(person("npo", rate=3.0), id=1, error=0.1)]
    proposer.tell(0, people)
    larger = []
    for generation in range(1, 4):
        asked = [each for each in proposer.ask(generation) if each.operator == "level"]
        larger += [(each.expression, each.parents) for each in asked if each.rate == LARGER_RATE]
        fared = told(asked, [0.4] * len(asked), first=10 * generation)
        proposer.tell(generation, [replace(each, details=kept) for each in fared])
    assert larger == [(other_level(KNOWN["ce-u"]), (10,))]


def test_the_leading_structures_are_tried_on_the_other_level_once():
    proposer = UnlearningEvolution(space())
    people = [
        replace(person(name, epochs=2, rate=3.0), id=n, error=0.1 * n)
        for n, name in enumerate(("ce-u", "npo", "ga"))
    ]
    people.append(replace(people[0], id=3, error=0.9, rate=1.0))
    proposer.tell(0, people)
    led = [each for each in proposer.ask(1, 3) if each.operator == "level"]
    assert [each.expression for each in led] == [
        other_level(KNOWN[name]) for name in ("ce-u", "npo")
    ]
    assert [(each.parents, each.epochs, each.rate) for each in led] == [
        ((0,), 2, 3.0), ((1,), 2, 3.0),
    ]  # fmt: skip
    more = [*proposer.ask(1, 5)]
    proposer.tell(1, told([*led, *more], [0.4] * 7, first=4))
    more += proposer.ask(2)
    assert all(each.operator != "level" for each in more)
    proposer.tell(2, [replace(people[2], id=20, error=0.05)])
    assert other_level(KNOWN["ga"]) in [each.expression for each in proposer.ask(3)]


@pytest.mark.parametrize("make", [UnlearningEvolution, UnlearningZoo])
@pytest.mark.parametrize("population", [3, 8])
def test_resumed_it_asks_the_same_whatever_local_search_made_of_constants(make, population):
    """A run keeps losses with the constants that they were tuned to, and not those asked for."""

    def tuned(loss):
        numbers = [node for node in walk(loss) if isinstance(node, Const)]
        return with_constants(loss, [1.01 * each.value for each in numbers])

    live, generations, asked = make(space(population=population)), [], []
    for number in range(5):
        asked.append(live.ask(number))
        people = told(asked[-1], np.linspace(0.9, 0.1, population), population * number)
        generations.append([
            replace(each, expression=tuned(each.expression),
                    details={"metrics": {"forgetting": 0.9, "utility_kept": 0.8}})
            for each in people
        ])  # fmt: skip
        live.tell(number, generations[-1])
    larger = [each for made in asked for each in made if each.rate == LARGER_RATE]
    assert larger or make is UnlearningZoo
    for stop in range(1, 5):
        resumed = make(space(population=population))
        for number in range(stop):
            resumed.tell(number, generations[number])
        for number in range(stop, 5):
            assert resumed.ask(number) == asked[number]
            resumed.tell(number, generations[number])


def test_a_known_loss_of_which_nothing_was_measured_is_not_tried_again():
    proposer = UnlearningEvolution(space())
    proposer.tell(0, told(proposer.ask(0), [0.1 * n for n in range(8)]))
    assert all(each.operator != "known loss" for each in proposer.ask(1))


@pytest.mark.parametrize("name", ["kl-retain", "wga", "sat-imp", "ce-u"])
def test_losses_of_tokens_have_children_that_differ(name):
    found = [
        each
        for each in children([person(name), person("npo"), person("ce-u")])
        if each.operator in ("crossover", "mutation")
    ]
    for each in found:
        valid(each)
    own_ones = [each for each in found if each.parents[0] == 0]
    new = [each for each in own_ones if each.expression != KNOWN[name]]
    assert len(new) > len(own_ones) / 2
    trainable = [e for e in new if fault(e.expression, own(e.expression)) is None]
    assert len(trainable) > len(own_ones) / 8


def test_the_best_of_all_generations_are_parents():
    proposer = UnlearningEvolution(space(population=4))

    def tell(generation, *errors):
        numbered = enumerate(errors, start=4 * generation)
        people = [replace(person("npo", rate=n + 1.0), id=n, error=e) for n, e in numbered]
        proposer.tell(generation, people)
        return [each.id for each in proposer.best]

    assert tell(0, 0.4, math.inf, 0.1, None) == [2, 0]
    assert tell(1, 0.9, 0.8, 0.2, 0.7) == [2, 6, 0, 7]
    assert tell(2, 0.6, 0.95, 0.9, 0.99) == [2, 6, 0, 8]
    for each in proposer.ask(3):
        assert set(each.parents) <= {2, 6, 0, 8}


def test_copies_take_no_place_among_the_parents():
    proposer = UnlearningEvolution(space(population=3))
    same = [person("npo") for _ in range(5)]
    others = [person("ga"), person("npo", epochs=1), person("npo", rate=2.0)]
    people = [replace(e, id=n, error=n / 10) for n, e in enumerate([*same, *others])]
    proposer.tell(0, people)
    assert [each.id for each in proposer.best] == [0, 5, 6]


def test_where_nothing_could_be_trained_it_begins_anew():
    proposer = UnlearningEvolution(space())
    proposer.tell(0, told(proposer.ask(0), [None] * 8))
    assert {each.operator for each in proposer.ask(1)} == {"initial"}


@given(st.integers(0, 1000), st.integers(1, 8))
@settings(max_examples=10)
def test_a_slot_has_a_stream_of_its_own(seed, count):
    def bred():
        proposer = UnlearningEvolution(space(seed))
        proposer.tell(0, told(proposer.ask(0), np.random.default_rng(seed).random(8)))
        return proposer

    whole = bred().ask(1)
    assert texts(bred().ask(1, count)) == texts(whole)[:count]
    assert texts(bred().ask(2)) != texts(whole)


def test_a_mixture_that_asks_twice_gets_no_known_loss_twice():
    class Nobody:
        def ask(self, generation, count=None):
            return ()

        def tell(self, generation, results):
            pass

    members = {"gp": UnlearningEvolution, "none": lambda own: Nobody()}
    found = Mixture(space(), members).ask(0)
    assert len(found) == len({canonical_text(each.expression) for each in found}) == 8


def test_a_language_model_refines_losses_of_tokens_as_such():
    """Its prompt shows the parent with its masks, and the reply may use them."""
    reply = answer(
        f"def loss_fn_1({', '.join(UNLEARNING_TOKENS.inputs)}):\n"
        '    """epochs: 2"""\n'
        "    return log_probs_forget[mask_forget].mean() - log_probs_retain[mask_retain].mean()\n"
    )
    kept = []
    about = space(population=1, keep=kept.append)
    with Server([Scripted(reply)]) as server:
        proposer = LLMProposer(about, Endpoint(server.url, "tiny"), kept.append)
        proposer.tell(0, [person("kl-retain", rate=2.0)])
        (child,) = proposer.ask(1)
        (request,) = server.requests
    assert child.rate == 2.0
    assert {"mask_forget", "mask_retain"} <= inputs_of(child.expression)
    check(child.expression, UNLEARNING_TOKENS)
    assert "mask_retain" in request.body["messages"][-1]["content"].split("The parent")[0]


def without_constants(loss):
    return tuple("number" if isinstance(e, Const) else getattr(e, "op", e) for e in walk(loss))


def test_the_zoo_varies_the_known_losses_and_nothing_else():
    proposer = UnlearningZoo(space(population=3))
    given = [each for generation in range(2) for each in proposer.ask(generation)]
    given += proposer.ask(2)[:2]
    assert {each.expression for each in given} == set(KNOWN.values())
    varied = [each for generation in range(3, 20) for each in proposer.ask(generation)]
    structures = {without_constants(loss) for loss in KNOWN.values()}
    assert {without_constants(each.expression) for each in varied} <= structures
    for each in varied:
        valid(each)
    assert len({each.expression for each in varied}) > 2 * len(KNOWN)
    assert len({each.rate for each in varied}) > 5
    assert {each.epochs for each in varied} == set(range(1, MOST + 1))


@pytest.mark.parametrize("make", [UnlearningRandom, UnlearningZoo, UnlearningEvolution])
@pytest.mark.parametrize("generations", [1, 2, 3])
def test_being_told_is_enough_to_go_on(make, generations):
    """As in a resumed search, in which nobody asks for the stored generations."""
    asked, resumed = make(space(population=4)), make(space(population=4))
    first = 0
    for generation in range(generations):
        proposals = asked.ask(generation)
        slow = {"metrics": {"forgetting": 0.1, "utility_kept": 0.5}}  # is tried at a larger rate
        found = told(proposals, [0.1 * (n + generation) for n in range(4)], first)
        results = [replace(each, details=slow) for each in found]
        first += 4
        asked.tell(generation, results)
        resumed.tell(generation, results)
    assert texts(resumed.ask(generations)) == texts(asked.ask(generations))
