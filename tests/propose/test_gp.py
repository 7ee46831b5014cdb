"""Genetic programming: closure, constraints, determinism, and the published probabilities."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from evoloss.errors import UserError
from evoloss.lang.expr import (
    Call,
    Const,
    Expr,
    Input,
    call,
    check,
    children,
    height,
    inputs_of,
    size,
    walk,
)
from evoloss.propose.gp import (
    GPSettings,
    Individual,
    crossover,
    initial,
    mutate,
    offspring,
    random_expression,
    rank,
    repair,
    select,
)

Y, F, ONE = Input("y"), Input("f"), Const(1.0)
PUBLISHED = GPSettings(parsimony=1.0, retries=0)


def rng_of(seed):
    return lambda index: np.random.default_rng([seed, index])


def rng(seed=0):
    return np.random.default_rng(seed)


def chain(length: int, end: Expr = Y) -> Expr:
    for _ in range(length):
        end = call("tanh", end)
    return end


def leaf_depths(expr, depth=0):
    below = [leaf_depths(child, depth + 1) for child in children(expr)]
    return list(itertools.chain(*below)) if below else [depth]


def population_of(proposals, errors):
    return [
        Individual(100 + place, proposal.expression, error)
        for place, (proposal, error) in enumerate(zip(proposals, errors, strict=True))
    ]


def assert_closed(expr, settings):
    check(expr)
    assert height(expr) <= settings.max_height
    for node in walk(expr):
        match node:
            case Call(op, _):
                assert op in settings.functions
            case Input(name):
                assert name in ("y", "f")
            case Const(value):
                assert value in (1.0, -1.0)


SETTINGS = st.builds(
    GPSettings,
    functions=st.sampled_from([GPSettings().functions, ("mul", "tanh"), ("aq", "sqrt", "min")]),
    population=st.integers(2, 12),
    max_height=st.integers(4, 6),
    initial_heights=st.sampled_from([(0, 0), (0, 4), (2, 4), (4, 4)]),
    mutation_heights=st.sampled_from([(0, 2), (0, 4)]),
    parsimony=st.sampled_from([1.0, 1.4, 2.0]),
    retries=st.integers(0, 2),
)
ERRORS = st.none() | st.floats()


@examples(max_examples=60)
@given(SETTINGS, st.integers(0, 2**32), st.data())
def test_every_proposal_is_a_loss_within_the_limits(settings, seed, data):
    proposals = initial(settings, rng_of(seed))
    for generation in range(4):
        assert len(proposals) == settings.population
        for proposal in proposals:
            assert_closed(proposal.expression, settings)
        errors = [data.draw(ERRORS) for _ in proposals]
        proposals = offspring(
            settings, population_of(proposals, errors), rng_of(seed + generation + 1)
        )


@pytest.mark.parametrize("avoid", [None, lambda expr: size(expr) > 6])
def test_the_same_generators_give_the_same_proposals_in_any_order(avoid):
    settings = GPSettings()
    first = initial(settings, rng_of(1), avoid)
    assert first == initial(settings, rng_of(1), avoid)
    assert first != initial(settings, rng_of(2), avoid)
    population = population_of(first, [place * 7 % 25 / 25 for place in range(25)])

    # A slot sees its own generator only: another one elsewhere changes nothing but that slot.
    base = offspring(settings, population, rng_of(3), avoid)
    assert base == offspring(settings, population[::-1], rng_of(3), avoid)
    for slot in (1, 12, 24):
        other = offspring(
            settings,
            population,
            lambda index, slot=slot: rng(99) if index == slot else rng_of(3)(index),
            avoid,
        )
        assert all(other[place] == base[place] for place in range(25) if place != slot)


@given(st.lists(ERRORS, min_size=1, max_size=12), st.integers(0, 9))
def test_the_best_is_carried_over(errors, seed):
    expressions = initial(GPSettings(population=max(2, len(errors))), rng_of(seed))
    population = population_of(expressions[: len(errors)], errors)
    elite = offspring(GPSettings(), population, rng_of(seed))[0]
    finite = [each for each in population if each.error is not None and np.isfinite(each.error)]
    assert elite.operator == "elite"
    (winner,) = [each for each in population if (each.id,) == elite.parents]
    assert elite.expression == winner.expression
    if finite:
        assert winner.error == min(each.error for each in finite)
        assert winner.id == min(each.id for each in finite if each.error == winner.error)
    else:
        assert winner.id == min(each.id for each in population)


def test_the_share_of_elites_is_kept():
    settings = GPSettings(population=60)
    population = population_of(initial(settings, rng_of(0)), range(60))
    operators = [each.operator for each in offspring(settings, population, rng_of(1))]
    assert operators[:3] == ["elite"] * 3
    assert "elite" not in operators[3:]


def test_individuals_without_an_error_breed_only_among_themselves():
    proposals = initial(GPSettings(), rng_of(0))
    bad = [None, float("nan"), float("inf"), float("-inf"), None]
    population = population_of(proposals[:8], [*bad, 3.0, 2.0, *bad[:1]])
    parents = {
        parent
        for seed in range(10)
        for each in offspring(GPSettings(), population, rng_of(seed))
        for parent in each.parents
    }
    assert parents == {105, 106}
    hopeless = population_of(proposals[:5], bad)
    assert all(each.parents for each in offspring(GPSettings(), hopeless, rng_of(0)))


def double_tournament_by_enumeration(sizes, rounds, parsimony):
    """Chance of each place (best first) to be selected, counted over all possible draws."""
    places = range(len(sizes))
    single = Counter(min(draw) for draw in itertools.product(places, repeat=rounds))
    total = sum(single.values())
    chance = np.zeros(len(sizes))
    for one, other in itertools.product(places, repeat=2):
        weight = single[one] * single[other] / total**2
        first = 0.5 if sizes[one] == sizes[other] else parsimony / 2
        small, large = (one, other) if sizes[one] <= sizes[other] else (other, one)
        chance[small] += weight * first
        chance[large] += weight * (1 - first)
    return chance


@pytest.mark.parametrize("parsimony", [1.0, 1.4, 2.0])
@pytest.mark.parametrize("rounds", [1, 4])
def test_selection_has_the_chances_of_the_double_tournament(parsimony, rounds):
    lengths = [5, 2, 3, 3, 1]
    population = [Individual(n, chain(k), float(n)) for n, k in enumerate(lengths)]
    settings = GPSettings(tournament=rounds, parsimony=parsimony)
    generator, draws = rng(5), 12_000
    found = Counter(select(settings, rank(population), generator).id for _ in range(draws))
    expected = double_tournament_by_enumeration(lengths, rounds, parsimony)
    deviation = np.sqrt(expected * (1 - expected) / draws)
    observed = np.array([found[each.id] / draws for each in population])
    assert np.all(np.abs(observed - expected) <= 4 * deviation + 1e-9)


def test_equal_errors_rank_by_id():
    population = [Individual(number, Y, 1.0) for number in (5, 2, 9)]
    assert [each.id for each in rank(population)] == [2, 5, 9]


def test_operators_occur_at_the_published_rates():
    settings = GPSettings()
    population = population_of(initial(settings, rng_of(0)), range(25))
    generations = 160
    found = Counter(
        each.operator
        for seed in range(generations)
        for each in offspring(settings, population, rng_of(seed))
    )
    total = 25 * generations
    assert found["elite"] == generations
    assert found["crossover"] / total == pytest.approx(0.70, abs=0.025)
    assert found["mutation"] / total == pytest.approx(0.25, abs=0.025)
    assert (found["elite"] + found["reproduction"]) / total == pytest.approx(0.05, abs=0.01)


def test_new_trees_have_all_heights_and_no_leaf_above_the_least():
    generator = rng(3)
    trees = [random_expression(PUBLISHED, generator, (2, 4)) for _ in range(3000)]
    heights = Counter(height(tree) for tree in trees)
    assert set(heights) == {2, 3, 4}
    assert all(min(leaf_depths(tree)) >= 2 for tree in trees)
    # Full trees draw their height evenly; growing can only end earlier than drawn.
    assert heights[2] >= 0.3 * len(trees)
    assert heights[4] >= 0.2 * len(trees)


def test_half_of_the_trees_are_grown_and_end_early_as_often_as_terminals_are_drawn():
    # Height 0 is drawn half the time; of the other half, half may end at the root, by 4 in 16.
    generator = rng(4)
    trees = [random_expression(PUBLISHED, generator, (0, 1)) for _ in range(8000)]
    share = np.mean([height(tree) == 0 for tree in trees])
    assert share == pytest.approx(1 / 2 + 1 / 4 * 4 / 16, abs=0.02)


def all_subtree_swaps(first, second):
    """Every tree that one-point crossover can make, built by recursion over the first parent."""
    gifts = list(walk(second))[1:]

    def swapped(node):
        for place, child in enumerate(node.args):
            for new in [*gifts, *(swapped(child) if isinstance(child, Call) else [])]:
                yield Call(node.op, (*node.args[:place], new, *node.args[place + 1 :]))

    return Counter(swapped(first))


def test_crossover_makes_every_swap_below_the_roots_evenly():
    first = call("add", call("square", Y), F)
    second = call("mul", call("tanh", ONE), call("abs", F))
    generator, draws = rng(1), 6000
    found = Counter(crossover(PUBLISHED, first, second, generator) for _ in range(draws))
    possible = all_subtree_swaps(first, second)
    assert set(found) == set(possible)
    for tree, count in possible.items():
        chance = count / sum(possible.values())
        assert found[tree] / draws == pytest.approx(chance, abs=4 * (chance / draws) ** 0.5)


def test_mutation_reaches_every_node_and_keeps_the_rest():
    parent = call("add", call("square", Y), F)
    children_made = [mutate(PUBLISHED, parent, rng(seed)) for seed in range(400)]
    kept = [
        sum(
            (
                isinstance(child, Call) and child.op == "add" and child.args[0] == parent.args[0],
                isinstance(child, Call) and child.op == "add" and child.args[1] == parent.args[1],
            )
        )
        for child in children_made
    ]
    assert {0, 1, 2} <= set(kept)
    assert {height(child) for child in children_made} >= {0, 1, 2, 3, 4}


@pytest.mark.parametrize("vary", [mutate, crossover])
def test_a_child_over_the_height_limit_is_dropped_for_its_parent(vary):
    settings = GPSettings(max_height=5)
    parent = chain(4, call("sub", Y, F))
    tall = () if vary is mutate else (parent,)
    made = [vary(settings, parent, *tall, rng(seed)) for seed in range(200)]
    assert max(height(child) for child in made) <= 5
    assert parent in made
    assert any(child != parent for child in made)


@pytest.mark.parametrize("tree", [Y, F, ONE, call("mul", Y, ONE), call("max", call("abs", F), F)])
def test_repair_puts_both_inputs_in_the_place_of_a_terminal(tree):
    for seed in range(30):
        fixed = repair(GPSettings(), tree, rng(seed))
        assert inputs_of(fixed) == {"y", "f"}
        assert size(fixed) == size(tree) + 2
        (new,) = [node for node in walk(fixed) if node not in set(walk(tree)) and height(node) == 1]
        assert new.op in ("add", "sub", "mul", "aq")
        assert set(new.args) == {Y, F}


def test_repair_makes_every_pair_in_both_orders():
    made = {repair(GPSettings(), Y, rng(seed)) for seed in range(200)}
    operators = ("add", "sub", "mul", "aq")
    assert made == {call(op, *pair) for op in operators for pair in ((Y, F), (F, Y))}


def test_repair_keeps_within_the_height_limit():
    settings = GPSettings(max_height=4)
    tallest = chain(4)
    assert height(repair(settings, tallest, rng())) == 4
    assert inputs_of(repair(settings, tallest, rng())) == {"y", "f"}
    uneven = call("add", chain(3), ONE)
    for seed in range(20):
        assert repair(settings, uneven, rng(seed)).args[0] == chain(3)


def test_repair_leaves_a_whole_loss_alone():
    loss = call("square", call("sub", Y, F))
    assert repair(GPSettings(), loss, rng()) is loss


def test_offspring_seen_before_are_drawn_again():
    population = population_of(initial(GPSettings(), rng_of(0)), range(25))
    seen = {each.expression for each in population}

    def repeated(retries):
        made = offspring(GPSettings(retries=retries), population, rng_of(1), seen.__contains__)
        bred = [each for each in made if each.operator in ("crossover", "mutation")]
        return sum(each.expression in seen for each in bred)

    assert repeated(0) > 0
    assert repeated(50) == 0


def test_no_retries_is_what_nothing_to_avoid_is():
    settings = GPSettings(retries=0)
    population = population_of(initial(settings, rng_of(0)), range(25))
    everything = offspring(settings, population, rng_of(1), lambda expr: True)
    assert everything == offspring(settings, population, rng_of(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"functions": ("add", "sinh")}, "'sinh' cannot be evolved"),
        ({"functions": ("add", "lt")}, "'lt' cannot be evolved"),
        ({"functions": ("tanh",)}, "hold none of"),
        ({"population": 1}, "population 1 is too small"),
        ({"crossover": 0.9}, "make them shares of 1"),
        ({"crossover": 0.0, "mutation": 0.0, "elitism": 1.0}, "make them shares of 1"),
        ({"tournament": 0}, "tournament 0 is too small"),
        ({"parsimony": 0.5}, "parsimony 0.5 is out of range"),
        ({"retries": -1}, "retries -1 is negative"),
        ({"max_height": 3}, "heights 2 to 4 do not fit max_height 3"),
        ({"mutation_heights": (2, 1)}, "heights 2 to 1 do not fit"),
    ],
)
def test_impossible_settings_are_the_users_mistake(wrong, message):
    with pytest.raises(UserError, match=message):
        GPSettings(**wrong)


def test_an_empty_population_has_no_offspring():
    with pytest.raises(ValueError, match="empty population"):
        offspring(GPSettings(), [], rng_of(0))
