"""The fictitious authors, and a small model that learns some of them."""

import pytest
import torch

from evoloss.unlearn.data.divide import divide
from evoloss.unlearn.data.example import normalised
from evoloss.unlearn.data.sets import checked
from evoloss.unlearn.fiction import authors, fiction
from evoloss.unlearn.log_probs import mean_log_probs
from evoloss.unlearn.tokens import Encoder, padded

pytest.importorskip("transformers", reason="transformers is not installed")


def texts(data):
    sets = (data.forget, data.retain, data.holdout)
    return [
        text
        for rows in sets
        for each in rows
        for text in (each.prompt, each.answer, each.paraphrased_prompt, each.paraphrased_answer,
                     *each.perturbed, "Question: Answer:")
    ]  # fmt: skip


def test_every_question_is_asked_once_and_its_false_answers_are_false():
    data = checked(fiction(seed=3))
    rows = [each for part in (data.forget, data.retain, data.holdout) for each in part]
    questions = [key for each in rows for key in each.keys]
    assert len(set(questions)) == len(questions) == 2 * 44 * 5
    for each in rows:
        answers = {each.paraphrased_answer, *each.perturbed}
        assert len(answers) == 5
        value = set(normalised(each.answer).split()) & set(
            normalised(each.paraphrased_answer).split()
        )
        assert value


def test_it_is_the_same_for_the_same_seed_and_no_author_is_in_two_sets():
    assert fiction(seed=1) == fiction(seed=1)
    assert fiction(seed=1) != fiction(seed=2)
    everyone = authors(400, 0)
    assert len({person[0].prompt for person in everyone}) == 400
    assert {len(person) for person in everyone} == {5}


def test_search_and_test_parts_have_different_questions():
    parts = divide(fiction(), seed=0)
    search = {key for each in parts.search.forget for key in each.keys}
    assert not search & {key for each in parts.test.forget for key in each.keys}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A model of two authors, one of the first alone, and their data."""
    from evoloss.unlearn.small_model import taught

    patch = pytest.MonkeyPatch()
    patch.setenv("EVOLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
    data = fiction(forget=1, retain=1, holdout=1)
    both = taught("both", [data.forget, data.retain], texts(data), seed=0)
    one = taught("one", [data.retain], texts(data), seed=0)
    again = taught("both", [data.forget, data.retain], texts(data), seed=0)
    patch.undo()
    assert again == both
    return both, one, data


def probability(folder, rows):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
    encoder = Encoder(tokenizer)
    encoded = padded(encoder.encode_set(rows, 96).rows, encoder.pad)
    with torch.no_grad():
        return float(mean_log_probs(model.eval(), encoded)[0].exp().mean())


def test_a_twin_knows_what_it_was_taught_and_nothing_else(twins):
    both, one, data = twins
    assert probability(both, data.forget) > 0.9
    assert probability(both, data.retain) > 0.9
    assert probability(one, data.retain) > 0.9
    assert probability(one, data.forget) < 0.6
    assert probability(both, data.holdout) < 0.6
