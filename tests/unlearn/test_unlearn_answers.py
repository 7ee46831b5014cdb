"""Metrics of answers and texts against hand-computed values and slow, plain versions."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from evoloss.errors import UserError
from evoloss.unlearn.metrics.answers import (
    choices_right,
    exact_memorisation,
    extraction_strengths,
    forget_truth_ratios,
    log_truth_ratios,
    probabilities,
    probabilities_among_options,
    truth_ratios,
)
from evoloss.unlearn.metrics.table import METRICS, MetricError, average, metric, value_of
from evoloss.unlearn.metrics.texts import AnyScript, rouge_l_f1, rouge_l_recall

LOG_PROBS = st.lists(st.floats(-30, 0), min_size=1, max_size=6)
MATCHES = st.lists(st.booleans(), min_size=1, max_size=9)
WORDS = st.lists(st.sampled_from(["zig", "zog", "zag", "zug"]), min_size=1, max_size=7)


def geometric_mean(log_probs):
    """Prob the other way round: the root of the product of the token probabilities."""
    return math.prod(map(math.exp, log_probs)) ** (1 / len(log_probs))


@given(st.lists(LOG_PROBS, min_size=1, max_size=4))
def test_prob_is_the_geometric_mean_of_the_token_probabilities(answers):
    found = probabilities([torch.tensor(each, dtype=torch.float64) for each in answers])
    assert found == pytest.approx([geometric_mean(each) for each in answers])
    assert 0 <= average("prob", found) <= 1


@given(LOG_PROBS, st.floats(0.01, 5))
def test_prob_falls_when_a_token_gets_less_probable(answer, less):
    worse = [answer[0] - less, *answer[1:]]
    assert probabilities([worse])[0] < probabilities([answer])[0]


@given(LOG_PROBS, st.lists(LOG_PROBS, min_size=1, max_size=4))
def test_prob_among_options_is_a_share_of_the_sum(right, others):
    total = sum(map(geometric_mean, [right, *others]))
    found = probabilities_among_options([right], [others])[0]
    assert found == pytest.approx(geometric_mean(right) / total)
    assert METRICS["prob_among_options"].checked(found)


@given(LOG_PROBS, st.lists(LOG_PROBS, min_size=1, max_size=4))
def test_the_truth_ratio_is_the_mean_of_the_false_over_the_true(true, false):
    ratio = np.mean([geometric_mean(each) for each in false]) / geometric_mean(true)
    logs = log_truth_ratios([true], [false])
    assert np.exp(logs[0]) == pytest.approx(ratio)
    assert forget_truth_ratios(logs)[0] == pytest.approx(min(ratio, 1 / ratio))
    assert truth_ratios(logs)[0] == pytest.approx(max(0, 1 - ratio), abs=1e-12)


def test_truth_ratios_survive_probabilities_too_small_for_a_float():
    logs = log_truth_ratios([[-2000.0], [-9000.0]], [[[-2000.0], [-2000.0]], [[-1000.0]]])
    assert logs.tolist() == [0.0, 8000.0]
    assert forget_truth_ratios(logs).tolist() == [1.0, 0.0]
    assert truth_ratios(logs).tolist() == [0.0, 0.0]


@given(MATCHES)
def test_extraction_strength_is_what_follows_the_shortest_prefix(matches):
    length = len(matches)
    shortest = next(k for k in range(length + 1) if all(matches[k:]))
    assert extraction_strengths([matches])[0] == pytest.approx(1 - shortest / length)
    assert exact_memorisation([matches])[0] == pytest.approx(matches.count(True) / length)
    assert extraction_strengths([matches])[0] <= exact_memorisation([matches])[0] + 1e-12


def test_the_most_probable_choice_counts_and_ties_count_as_chance():
    sure, unsure = [-0.1], [-3.0]
    choices = [[unsure, sure, unsure], [sure, unsure], [unsure] * 4]
    assert choices_right(choices, [1, 1, 2]).tolist() == [1.0, 0.0, 0.25]


@cache
def common(one, other):
    """Length of the longest common subsequence, from its definition."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common(one[1:], other[1:])
    return max(common(one[1:], other), common(one, other[1:]))


@given(WORDS, WORDS)
def test_rouge_l_is_the_longest_common_subsequence(generated, true):
    length = common(tuple(generated), tuple(true))
    recall, precision = length / len(true), length / len(generated)
    texts = [" ".join(generated)], [" ".join(true).upper() + "!"]
    assert rouge_l_recall(*texts)[0] == pytest.approx(recall)
    wanted = 2 * recall * precision / (recall + precision) if length else 0.0
    assert rouge_l_f1(*texts)[0] == pytest.approx(wanted)


def test_rouge_is_that_of_the_package_with_stemming_for_latin_texts():
    true, generated = "Her novels, «Café Núñez», were translated.", "the novel Café was translating"
    wanted = RougeScorer(["rougeL"], use_stemmer=True).score(true, generated)["rougeL"]
    assert rouge_l_recall([generated], [true])[0] == wanted.recall > 0.4
    assert rouge_l_f1([generated], [true])[0] == wanted.fmeasure


@pytest.mark.parametrize(
    ("true", "generated", "recall"),
    [
        ("Его звали Иван Петров", "его звали Пётр", 0.5),
        ("東京で生まれた", "東京に生まれた", 6 / 7),
        ("Он жил в 1956", "1956", 0.25),
        ("عاش عام ١٩٥٦", "١٩٥٦", 1 / 3),
        ("１９５６", "１９５６", 1.0),
        ("東京Towerで", "東京 towers", 3 / 4),
        ("5µm", "5µm", 1.0),
    ],
)
def test_rouge_counts_words_of_any_script(true, generated, recall):
    assert rouge_l_recall([generated], [true])[0] == pytest.approx(recall)
    assert rouge_l_recall([""], [true])[0] == 0


def test_one_letter_of_another_script_changes_no_other_word():
    true, generated = "the cells were translating novels", "the Cell was translated, a NOVEL"
    plain = RougeScorer(["rougeL"], use_stemmer=True).score(true, generated)["rougeL"]
    assert plain.recall == 0.8
    measured = f"{true} of 5 µ", f"{generated} of 5 µ"
    assert rouge_l_recall([measured[1]], [measured[0]])[0] == pytest.approx(7 / 8)


@given(st.text(st.sampled_from("abcDEF sing's-_ ,.ÉéßñŒİ¼²09\n"), max_size=30))
def test_latin_texts_have_the_words_of_the_package(text):
    assert AnyScript().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@pytest.mark.parametrize(
    ("compute", "name"),
    [
        (lambda: probabilities([]), "prob"),
        (lambda: probabilities([[]]), "prob"),
        (lambda: probabilities([[-1.0], [float("nan")]]), "prob.*answer 1"),
        (lambda: probabilities([[-float("inf")]]), "prob.*-inf"),
        (lambda: probabilities([[0.5]]), "prob.*above 0"),
        (lambda: probabilities([torch.zeros(2, 2)]), "prob.*shape"),
        (lambda: probabilities_among_options([[-1.0]], []), "prob_among_options.*0 alternatives"),
        (lambda: log_truth_ratios([[-1.0]], [[]]), "truth_ratio"),
        (lambda: extraction_strengths([[]]), "extraction_strength"),
        (lambda: exact_memorisation([]), "exact_memorisation"),
        (lambda: choices_right([], []), "multiple_choice"),
        (lambda: choices_right([[[-1.0]]], [1]), "multiple_choice.*none is 1"),
        (lambda: rouge_l_recall([], []), "rouge_l_recall"),
        (lambda: rouge_l_f1([None], ["a"]), "rouge_l_f1.*missing"),
        (lambda: rouge_l_recall(["a"], ["..."]), "rouge_l_recall.*no words"),
        (lambda: average("prob", []), "prob"),
        (lambda: average("prob", [0.1, float("nan")]), "prob"),
        (lambda: value_of({}, "prob"), "prob.*missing"),
        (lambda: value_of({"prob": 1.5}, "prob"), "prob.*1.5.*outside"),
    ],
)
def test_what_cannot_be_measured_is_an_error_that_names_the_metric(compute, name):
    with pytest.raises(MetricError, match=name):
        compute()


def test_an_unknown_metric_is_told_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'privleak'"):
        metric("privleek")


@pytest.mark.parametrize("row", METRICS.values(), ids=METRICS)
def test_every_metric_says_what_it_is(row):
    assert row.name
    assert row.source
    assert len(row.definition.split()) > 5
    assert row.on_forget or row.on_rest
    low, high = row.range
    assert low < high
    assert row.checked(max(low, 0.0)) == max(low, 0.0)
    for bad in (None, float("nan"), float("inf"), low - 1):
        with pytest.raises(MetricError, match=row.name):
            row.checked(bad)
