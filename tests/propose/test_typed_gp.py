"""Genetic programming where a loss is one number: every tree stays well typed."""

import numpy as np

from evoloss.lang.expr import Call, check, height, walk
from evoloss.lang.parse import parse
from evoloss.lang.types import UNLEARNING
from evoloss.propose.gp import GPSettings, crossover, initial, mutate, offspring, repair
from evoloss.propose.proposer import Individual

SETTINGS = GPSettings(
    functions=("add", "sub", "mul", "aq", "tanh", "softplus", "max"), population=20,
    signature=UNLEARNING, retries=0,
)  # fmt: skip
NPO = parse(
    "mean(softplus(0.1*(log_probs_forget - ref_log_probs_forget))) - mean(log_probs_retain)",
    UNLEARNING,
)


def generator(slot):
    return np.random.default_rng(slot)


def test_generations_are_losses_of_the_signature():
    people = [each.expression for each in initial(SETTINGS, generator)]
    for round_ in range(6):
        for expr in people:
            check(expr, UNLEARNING)
            assert height(expr) <= SETTINGS.max_height
        ranked = [Individual(n, expr, float(n)) for n, expr in enumerate(people)]
        bred = offspring(SETTINGS, ranked, lambda slot, r=round_: generator((r, slot)))
        people = [each.expression for each in bred]
    assert len(set(people)) > 5


def test_crossover_with_hand_written_losses_mixes_both():
    trees = [each.expression for each in initial(SETTINGS, generator)]
    children = [crossover(SETTINGS, NPO, tree, generator(n)) for n, tree in enumerate(trees)]
    children += [crossover(SETTINGS, tree, NPO, generator(n)) for n, tree in enumerate(trees)]
    for child in children:
        check(repair(SETTINGS, child, generator(0)), UNLEARNING)
    mixed = [child for child in children if child != NPO and child not in trees]
    assert len(mixed) > len(children) / 2


def test_mutation_may_replace_a_reduction_by_a_reduction():
    mutants = [mutate(SETTINGS, NPO, generator(n)) for n in range(200)]
    for mutant in mutants:
        check(repair(SETTINGS, mutant, generator(0)), UNLEARNING)
    roots = {each.op for each in mutants if isinstance(each, Call)}
    assert {"sub", "mean"} <= roots
    assert any(sum(isinstance(n, Call) and n.op == "mean" for n in walk(m)) == 2 for m in mutants)
