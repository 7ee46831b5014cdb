"""The division into search and test part: disjoint, complete, repeatable."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evoloss.errors import UserError
from evoloss.unlearn.data.divide import divide, divide_set
from evoloss.unlearn.data.example import Choice, DataSet, Example, UnlearningData

QUESTIONS = st.lists(
    st.tuples(st.integers(0, 20), st.none() | st.integers(0, 20)), min_size=2, max_size=40
)


def asked(pairs):
    """Examples whose questions, and paraphrases, are equal where the numbers are."""
    return tuple(
        Example(f"Q {one}?", f"{row}", None if two is None else f"q {two}", row=row)
        for row, (one, two) in enumerate(pairs)
    )


def words(rows):
    return {
        text.casefold().strip("?")
        for each in rows
        for text in (each.prompt, each.paraphrased_prompt)
        if text
    }


@given(QUESTIONS, st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_no_question_or_paraphrase_is_in_both_parts_and_none_is_lost(pairs, seed, share):
    whole = DataSet("set", asked(pairs), ("a note",))
    graph = nx.Graph()
    for one, two in pairs:
        graph.add_edge(one, one if two is None else two)
    assume(nx.number_connected_components(graph) > 1)
    search, test = divide_set(whole, np.random.default_rng(seed), share)
    assert not words(search) & words(test)
    assert sorted(row.row for row in (*search, *test)) == list(range(len(whole)))
    for part in (search, test):
        assert len(part) > 0
        assert [row.row for row in part] == sorted(row.row for row in part)
        assert part.notes == whole.notes


@given(st.integers(2, 50), st.integers(0, 100), st.floats(0.05, 0.95))
def test_the_parts_have_the_sizes_asked_for(count, seed, share):
    whole = DataSet("set", asked([(number, None) for number in range(count)]))
    _, test = divide_set(whole, np.random.default_rng(seed), share)
    assert len(test) == pytest.approx(min(max(share * count, 1), count - 1), abs=0.5 + 1e-9)


def some(word):
    return DataSet(word, tuple(Example(f"{word} {n}", f"{n}", row=n) for n in range(30)))


def test_every_set_is_divided_and_the_division_is_the_seeds():
    choices = DataSet("c", tuple(Choice("Which?", ("a", f"{n}"), 0) for n in range(30)))
    data = UnlearningData(
        "task", some("f"), some("r"), some("h"), {"facts": some("p")}, {"wmdp": choices}
    )
    parts = divide(data, 7)
    assert (len(parts.search.retain), len(parts.test.retain)) == (23, 7), "a quarter of 30"
    assert not set(parts.search.retain) & set(parts.test.retain)
    for one, other in [
        (parts.search.forget, parts.test.forget),
        (parts.search.holdout, parts.test.holdout),
        (parts.search.probes["facts"], parts.test.probes["facts"]),
        (parts.search.choices["wmdp"], parts.test.choices["wmdp"]),
    ]:
        assert len(one) == len(other) == 15
        assert not set(one) & set(other)
    assert divide(data, 7) == parts
    assert divide(data, 8).test.forget != parts.test.forget
    # Sets of the same size are not divided along the same rows, nor does one depend on another.
    assert [r.row for r in parts.test.forget] != [r.row for r in parts.test.retain]
    assert divide(UnlearningData("task", some("f")), 7).test.forget == parts.test.forget
    assert divide(UnlearningData("task", some("f")), 7).test.retain is None


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="'set' asks 1 different question:"):
        divide_set(DataSet("set", asked([(1, None), (2, 1), (3, 2)])), np.random.default_rng(0))
    with pytest.raises(UserError, match="test share"):
        divide_set(some("f"), np.random.default_rng(0), 1.0)
