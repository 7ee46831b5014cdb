"""Values of all metrics, against plain loops over single examples with transformers alone."""

import math
import statistics
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from evoloss.unlearn.adapters import LoraSettings, attached, save
from evoloss.unlearn.data.example import Choice, DataSet, Example, UnlearningData
from evoloss.unlearn.measurement import Failed, measure, missing, quick
from evoloss.unlearn.prepared import prepare
from evoloss.unlearn.tokens import Encoder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")
import fictional  # noqa: E402

# `peft` asks `transformers` for a name that it has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LORA = LoraSettings(rank=4, alpha=8.0)
DATA = fictional.data()
ROUGE = RougeScorer(["rougeL"], use_stemmer=True)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(fictional.tokenizer())


@pytest.fixture(scope="module")
def prepared(encoder):
    return prepare(DATA, encoder, fictional.CONTEXT)


@pytest.fixture(scope="module")
def model():
    return fictional.model()


@pytest.fixture(scope="module")
def retain(encoder, prepared):
    [found] = measure(fictional.model(known=("retain",)), encoder, prepared)
    return found


@pytest.fixture(scope="module")
def original(model, encoder, prepared, retain):
    [found] = measure(model, encoder, prepared, retain=retain)
    return found


def distribution(model, before, after):
    """(T, V) log-probabilities of what follows each token before an answer's."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([before + after])).logits[0]
    return logits[len(before) - 1 : -1].log_softmax(-1)


def log_probs(model, example, answer=None, end=True):
    before, after = fictional.ids(example, answer, end)
    return distribution(model, before, after)[range(len(after)), after].double().numpy()


def prob(model, example, answer=None):
    return math.exp(log_probs(model, example, answer).mean())


def ratios(model, rows):
    return [
        np.mean([prob(model, each, other) for other in each.perturbed])
        / prob(model, each, each.paraphrased_answer)
        for each in rows
    ]


def answer(model, example, limit):
    before = torch.tensor([fictional.ids(example)[0]])
    end = fictional.tokenizer().eos_token_id
    found = model.generate(
        input_ids=before, attention_mask=torch.ones_like(before), do_sample=False,
        max_new_tokens=limit, eos_token_id=end, pad_token_id=0,
    )[0, before.shape[1] :]  # fmt: skip
    return fictional.tokenizer().decode(found, skip_special_tokens=True)


def rouge(model, rows, limit, which="recall"):
    return np.mean(
        [getattr(ROUGE.score(each.answer, answer(model, each, limit))["rougeL"], which)
         for each in rows]
    )  # fmt: skip


def test_probabilities_and_truth_ratios_are_those_of_single_examples(model, original):
    found = original.values
    for name, rows in (("forget", DATA.forget), ("retain", DATA.retain)):
        wanted = np.mean([prob(model, each) for each in rows])
        assert found[f"{name}_prob"] == pytest.approx(wanted, rel=1e-4)
    assert 0.1 < found["forget_prob"] < 0.9
    forget, kept = np.array(ratios(model, DATA.forget)), np.array(ratios(model, DATA.retain))
    least = np.minimum(forget, 1 / forget).mean()
    assert found["forget_truth_ratio"] == pytest.approx(least, rel=1e-4)
    assert found["retain_truth_ratio"] == pytest.approx(np.maximum(0, 1 - kept).mean(), rel=1e-3)
    assert original.forget_log_ratios == pytest.approx(np.log(forget).tolist(), abs=1e-4)
    for name in ("real_authors", "world_facts"):
        rows = DATA.probes[name]
        options = [
            prob(model, each)
            / sum(prob(model, each, other) for other in (each.answer, *each.perturbed))
            for each in rows
        ]
        assert found[f"{name}_prob"] == pytest.approx(np.mean(options), rel=1e-4)
        truth = [max(0, 1 - ratio) for ratio in ratios(model, rows)]
        assert found[f"{name}_truth_ratio"] == pytest.approx(np.mean(truth), rel=1e-3, abs=1e-5)


def test_the_end_token_counts_in_prob_and_not_in_memorisation(model, encoder):
    data = replace(DATA, probes={}, choices={})
    [found] = measure(model, encoder, prepare(data, encoder, fictional.CONTEXT), texts=False)
    strengths, exact = [], []
    for each in DATA.forget:
        before, after = fictional.ids(each, end=False)
        best = distribution(model, before, after).argmax(-1).tolist()
        matches = [one == other for one, other in zip(best, after, strict=True)]
        k = next(k for k in range(len(after) + 1) if all(matches[k:]))
        strengths.append(1 - k / len(after))
        exact.append(np.mean(matches))
    assert found.values["extraction_strength"] == pytest.approx(np.mean(strengths))
    assert found.values["exact_memorisation"] == pytest.approx(np.mean(exact))
    assert 0 < np.mean(strengths) < np.mean(exact) < 1
    without = [math.exp(log_probs(model, each, end=False).mean()) for each in DATA.forget]
    assert found.values["forget_prob"] != pytest.approx(np.mean(without), rel=1e-3)


def test_rouge_is_that_of_answers_generated_one_by_one(model, prepared, original):
    found, probes = original.values, DATA.probes
    assert found["forget_rouge"] == pytest.approx(rouge(model, DATA.forget, 32))
    assert found["retain_rouge"] == pytest.approx(rouge(model, DATA.retain, 32))
    assert found["world_facts_rouge"] == pytest.approx(rouge(model, probes["world_facts"], 32))
    verbatim = rouge(model, probes["forget_verbmem"], fictional.CONTEXT - 1, "fmeasure")
    assert found["forget_verbmem"] == pytest.approx(verbatim)
    for name in ("forget_knowmem", "retain_knowmem"):
        assert found[name] == pytest.approx(rouge(model, probes[name], 32, "fmeasure"))
    assert original.answers == tuple(answer(model, each, 32) for each in DATA.forget)
    assert len(original.retain_answers) == len(prepared.sets["retain"].openings) == 15


def test_choices_are_the_most_probable_letters(model, original):
    for name, questions in DATA.choices.items():
        right = []
        for each in questions:
            lines = [f"{'ABCD'[n]}. {text}" for n, text in enumerate(each.choices)]
            start = "The following are multiple choice questions (with answers).\n\n"
            prompt = "\n".join([start + each.question, *lines, "Answer:"])
            letters = [Example(prompt, letter, continues=True) for letter in "ABCD"]
            best = int(np.argmax([log_probs(model, letter).sum() for letter in letters]))
            right.append(best == each.answer)
        assert original.values[name] == pytest.approx(np.mean(right))


def gradient_norm(model, example):
    before, after = fictional.ids(example, end=False)
    logits = model(input_ids=torch.tensor([before + after])).logits[0]
    chosen = logits[len(before) - 1 : -1].log_softmax(-1)[range(len(after)), after]
    weights = [
        each.weight
        for each in model.modules()
        if isinstance(each, torch.nn.Linear) and each is not model.lm_head
    ]
    found = torch.autograd.grad(-chosen.mean(), weights)
    return float(torch.stack([each.norm() for each in found]).mean())


@pytest.mark.parametrize("steps", [25, 0])
def test_membership_inference_is_that_of_single_examples(encoder, prepared, retain, steps):
    model, other = fictional.model(steps), fictional.model(known=("retain",))
    [found] = measure(model, encoder, prepared, texts=False, retain=retain)

    def lowest(values):
        return np.sort(values)[: max(1, int(0.4 * len(values)))].mean()

    def standard(each):
        before, after = fictional.ids(each, end=False)
        own = distribution(model, before, after).double()
        mean = (own.exp() * own).sum(-1)
        deviation = ((own.exp() * own.square()).sum(-1) - mean.square()).sqrt()
        return ((own[range(len(after)), after] - mean) / deviation).numpy()

    def size(each):
        text = fictional.tokenizer().decode(fictional.ids(each, end=False)[1])
        return len(zlib.compress(text.encode()))

    def min_k(which, each):
        return lowest(log_probs(which, each, end=False))

    attacks = {
        "mia_loss": lambda each: log_probs(model, each).mean(),
        "mia_zlib": lambda each: log_probs(model, each).mean() / size(each),
        "mia_reference": lambda e: log_probs(model, e).mean() - log_probs(other, e).mean(),
        "mia_gradnorm": lambda each: -gradient_norm(model, each),
        "mia_min_k": lambda each: min_k(model, each),
        "mia_min_k_plus_plus": lambda each: lowest(standard(each)),
    }
    rows = [*DATA.forget, *DATA.holdout]
    labels = [1] * len(DATA.forget) + [0] * len(DATA.holdout)
    for name, attack in attacks.items():
        wanted = roc_auc_score(labels, [attack(each) for each in rows])
        assert found.values[name] == pytest.approx(wanted), name
    retained = roc_auc_score(labels, [min_k(other, each) for each in rows])
    unlearned = 1 - found.values["mia_min_k"]
    leak = 100 * (unlearned - (1 - retained)) / (1 - retained)
    assert found.values["privleak"] == pytest.approx(leak)


def test_gradient_norms_are_those_of_a_backward_pass_for_each_example(encoder, prepared):
    from evoloss.unlearn.answers import gradient_norms

    model = fictional.model()
    [plain] = gradient_norms(model, prepared.members, encoder.pad, batch=3)
    wanted = [gradient_norm(model, each) for each in DATA.forget]
    assert [plain[row] for row in prepared.members] == pytest.approx(wanted, rel=1e-4)
    model.requires_grad_(False)
    [frozen] = gradient_norms(model, prepared.members, encoder.pad)
    assert list(frozen.values()) == pytest.approx(list(plain.values()), rel=1e-4)


def test_scores_of_the_whole_model_are_put_together(model, encoder, prepared, retain, original):
    found = original.values
    parts = [
        found[f"{where}_{what}"]
        for where in ("retain", "real_authors", "world_facts")
        for what in ("prob", "rouge", "truth_ratio")
    ]
    assert len(original.utility_parts) == 9
    assert found["model_utility"] == pytest.approx(statistics.harmonic_mean(parts))
    pvalue = ks_2samp(original.forget_log_ratios, retain.forget_log_ratios).pvalue
    assert found["forget_quality"] == pytest.approx(pvalue)
    gone = statistics.mean([1 - found["forget_rouge"], 1 - found["forget_prob"]])
    assert found["tofu_score"] == pytest.approx((found["model_utility"] + gone) / 2)
    private = 1 - min(1, abs(found["privleak"]) / 100)
    gone = statistics.mean([1 - found["forget_verbmem"], 1 - found["forget_knowmem"], private])
    assert found["muse_score"] == pytest.approx((gone + found["retain_knowmem"]) / 2)


def test_models_are_compared_with_the_original_and_the_retain_model(
    model, encoder, prepared, retain, original
):
    assert not {"forgetting", "utility_kept", "balance"} & original.values.keys()
    [same] = measure(model, encoder, prepared, original=original, retain=retain)
    assert same.values["forgetting"] == same.values["balance"] == 0
    assert same.values["utility_kept"] == 1
    other = fictional.model(known=("retain",))
    [gold] = measure(other, encoder, prepared, original=original, retain=retain)
    assert (gold.values["forget_quality"], gold.values["privleak"]) == (1, 0)
    assert gold.values["mia_reference"] == 0.5
    assert gold.values["forgetting"] == 1
    [silent] = measure(model, encoder, prepared, texts=False)
    [gold] = measure(other, encoder, prepared, original=silent, retain=retain)
    assert gold.values["forgetting"] == 1
    parts = [name for name in gold.utility_parts if "rouge" not in name]
    assert gold.values["utility_kept"] == pytest.approx(kept(parts, gold, silent))


@pytest.mark.parametrize("probes", [True, False])
def test_what_was_trained_on_is_measured_beside_the_rest_and_alters_nothing(
    encoder, original, probes
):
    seen, model = DATA.retain.rows[:4], fictional.model()
    others = DATA.probes if probes else {}
    plain = prepare(replace(DATA, probes=others), encoder, fictional.CONTEXT)
    more = replace(DATA, probes={**others, "trained": DataSet("trained", seen)})
    prepared = prepare(more, encoder, fictional.CONTEXT)
    [before] = measure(model, encoder, prepared)
    with attached(model, 1, LORA) as adapters:
        fictional.stir(adapters)
        [each] = measure(model, encoder, plain, original=original)
        [found] = measure(model, encoder, prepared, original=before)
        wanted = np.mean([prob(model, row) for row in seen])
    assert found.values["trained_prob"] == pytest.approx(wanted, rel=1e-3)
    assert found.utility_parts == each.utility_parts
    own = {f"retain_{what}": f"trained_{what}" for what in ("prob", "rouge", "truth_ratio")}
    names = [own.get(name, name) for name in found.utility_parts]
    utility = statistics.harmonic_mean(found.values[name] for name in names)
    assert found.values["trained_utility"] == pytest.approx(utility)
    assert found.values["trained_kept"] == pytest.approx(kept(names, found, before))
    assert found.values["trained_kept"] != found.values["utility_kept"]
    assert each.values.items() <= found.values.items()


def kept(parts, after, before):
    shares = [after.values[name] / before.values[name] for name in parts]
    return statistics.harmonic_mean(min(1, each) for each in shares)


def known(values):
    return (values["forget_prob"] + values["forget_rouge"]) / 2


def test_candidates_side_by_side_are_as_each_alone(encoder, prepared, retain, original, tmp_path):
    model = fictional.model()
    with attached(model, 3, LORA) as adapters:
        fictional.stir(adapters)
        found = measure(
            model, encoder, prepared, copies=3, original=original, retain=retain, batch=7
        )
        states = adapters.states()
    assert len({each.values["forget_prob"] for each in found}) == 3
    for each, state in zip(found, states, strict=True):
        save(state, LORA, model, "fictional", tmp_path)
        loaded = peft.PeftModel.from_pretrained(fictional.model(), tmp_path).merge_and_unload()
        [alone] = measure(loaded, encoder, prepared, original=original, retain=retain)
        assert each.values == pytest.approx(alone.values, rel=1e-3, abs=1e-4)
        assert (each.answers, each.retain_answers) == (alone.answers, alone.retain_answers)
        wanted = np.mean([prob(loaded, row) for row in DATA.forget])
        assert each.values["forget_prob"] == pytest.approx(wanted, rel=1e-3)
        floor, before = known(retain.values), known(original.values)
        gone = (before - known(each.values)) / (before - floor)
        assert each.values["forgetting"] == pytest.approx(min(max(gone, 0), 1), abs=1e-6)
        wanted = kept(original.utility_parts, each, original)
        assert each.values["utility_kept"] == pytest.approx(wanted)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_destroyed_candidate_fails_alone(encoder, prepared, original, broken):
    model = fictional.model()
    with attached(model, 3, LORA) as adapters:
        fictional.stir(adapters)
        with torch.no_grad():
            next(iter(adapters.layers.values())).b[1] = broken
        found = measure(model, encoder, prepared, copies=3, original=original)
        raced = quick(model, encoder, prepared, copies=3, original=original)
        states = adapters.states()[::2]
    for each in (found, raced):
        assert isinstance(each[1], Failed)
        assert "finite" in each[1].reason
        assert "\n" not in each[1].reason
    with attached(model, 2, LORA) as adapters:
        adapters.load(states)
        alone = measure(model, encoder, prepared, copies=2, original=original)
    for one, other in zip((found[0], found[2]), alone, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-4, abs=1e-6)


def test_a_metric_without_meaning_for_one_candidate_is_its_failure(encoder, prepared, original):
    bad = replace(original, forget_log_ratios=(math.nan,))
    [found] = measure(fictional.model(), encoder, prepared, retain=bad)
    assert isinstance(found, Failed)
    assert "forget_quality" in found.reason


def test_a_race_looks_at_probabilities_alone(model, encoder, prepared, retain, original):
    [found] = quick(model, encoder, prepared)
    for name in ("forget_prob", "retain_prob"):
        assert found.values[name] == pytest.approx(original.values[name])
    assert "forgetting" not in found.values
    other = fictional.model(known=("retain",))
    [found] = quick(other, encoder, prepared, original=original)
    before, after = original.values["forget_prob"], retain.values["forget_prob"]
    assert found.values["forgetting"] == pytest.approx((before - after) / before)
    kept = retain.values["retain_prob"] / original.values["retain_prob"]
    assert found.values["utility_kept"] == pytest.approx(min(1, kept))
    assert found.answers == ()


PARTS = [
    DATA,
    UnlearningData("forget alone", DATA.forget),
    replace(DATA, probes={}, choices={}),
    replace(DATA, holdout=None, choices={}),
    replace(DATA, retain=None),
]


@pytest.mark.parametrize("data", PARTS)
@pytest.mark.parametrize("texts", [True, False])
def test_every_metric_has_a_value_or_a_reason(model, encoder, retain, original, data, texts):
    prepared = prepare(data, encoder, fictional.CONTEXT)
    for others in ({}, {"original": original, "retain": retain}):
        [found] = measure(model, encoder, prepared, texts=texts, **others)
        lacking = missing(prepared, texts=texts, **others)
        assert not found.values.keys() & lacking.keys()
        names = found.values.keys() | lacking.keys()
        assert {"forget_rouge", "retain_prob", "mia_gradnorm", "privleak", "muse_score"} <= names
        assert all(lacking.values())
        assert all(0 <= v <= 1 for name, v in found.values.items() if name != "privleak")
        if data is DATA and texts and others:
            assert lacking == {}
    assert "real_authors" in missing(prepare(PARTS[1], encoder, 64))["real_authors_prob"]


def test_what_the_data_lacks_is_not_measured(model, encoder, original):
    alone = prepare(PARTS[1], encoder, fictional.CONTEXT)
    [found] = measure(model, encoder, alone, original=original)
    assert found.values.keys() == {
        "forget_prob", "forget_rouge", "forget_truth_ratio", "extraction_strength",
        "exact_memorisation", "forgetting",
    }  # fmt: skip
    small = prepare(PARTS[2], encoder, fictional.CONTEXT)
    [found] = measure(model, encoder, small, original=original)
    assert found.utility_parts == ("retain_prob", "retain_rouge", "retain_truth_ratio")
    wanted = statistics.harmonic_mean(found.values[name] for name in found.utility_parts)
    assert found.values["model_utility"] == pytest.approx(wanted)
    assert found.values["utility_kept"] == 1


def test_other_models_without_anything_to_compare_are_reasons(encoder, prepared, original):
    lacking = missing(prepared, original, original)
    assert "nothing to forget" in lacking["forgetting"]
    assert lacking["balance"] == lacking["forgetting"]
    sure = replace(original, values={**original.values, "mia_min_k": 1.0})
    assert "AUC is 1" in missing(prepared, None, sure)["privleak"]
    useless = replace(original, values=dict.fromkeys(original.values, 0.0))
    assert "utility of 0" in missing(prepared, useless)["utility_kept"]
    wordless = replace(original, values={**original.values, "retain_rouge": 0.0})
    assert "utility_kept" not in missing(prepared, wordless)


def test_kept_rows_are_spread_evenly_and_the_forget_set_is_whole(model, encoder, original):
    few = prepare(DATA, encoder, fictional.CONTEXT, kept_rows=4)
    assert [each.question for each in few.sets["retain"].openings] == [
        DATA.retain.rows[place].prompt for place in (0, 3, 7, 11)
    ]
    assert {len(few.sets["retain"].compared), len(few.sets["real_authors"].openings)} == {4}
    assert len(few.sets["forget"].openings) == len(few.sets["forget"].compared) == 10
    [found] = measure(model, encoder, few)
    assert found.values["retain_prob"] == pytest.approx(original.values["retain_prob"])
    assert found.retain_answers == tuple(original.retain_answers[n] for n in (0, 3, 7, 11))
    picked = np.array(ratios(model, [DATA.retain.rows[n] for n in (0, 3, 7, 11)]))
    assert found.values["retain_truth_ratio"] == pytest.approx(
        np.maximum(0, 1 - picked).mean(), rel=1e-3
    )


def test_texts_are_continued_from_their_middle(model, encoder):
    lines = [" ".join(each.answer for each in rows) for rows in (DATA.forget, DATA.holdout)]
    texts = DataSet("texts", tuple(Example("", line, continues=True) for line in lines))
    prepared = prepare(UnlearningData("news", texts), encoder, context=20)
    asked = prepared.sets["forget"]
    assert len(asked.answers) == len(asked.openings) > 4
    assert any("cut 2 texts" in note for note in prepared.notes)
    [found] = measure(model, encoder, prepared)
    scores, recalls = [], []
    for row in asked.answers:
        half = len(row.ids) // 2
        before = torch.tensor([row.ids[:half]])
        end = fictional.tokenizer().eos_token_id
        tokens = model.generate(
            input_ids=before, attention_mask=torch.ones_like(before), do_sample=False,
            max_new_tokens=20 - half, eos_token_id=end, pad_token_id=0,
        )[0, half:]  # fmt: skip
        said, true = (fictional.tokenizer().decode(t, skip_special_tokens=True)
                      for t in (tokens, list(row.ids[half:])))  # fmt: skip
        scores.append(ROUGE.score(true, said)["rougeL"].fmeasure)
        recalls.append(ROUGE.score(true, said)["rougeL"].recall)
    assert found.values["forget_verbmem"] == pytest.approx(np.mean(scores))
    assert found.values["forget_rouge"] == pytest.approx(np.mean(recalls))


def test_questions_that_are_too_long_are_left_out_and_told(encoder):
    long = Choice("why " * 70, ("Lima", "Oslo"), 0, row=9)
    questions = DataSet("wmdp", (*DATA.choices["mmlu"], long))
    prepared = prepare(replace(DATA, choices={"wmdp_bio": questions}), encoder, 64)
    assert len(prepared.choices["wmdp_bio"]) == 5
    [note] = [note for note in prepared.notes if "left out" in note]
    assert "1 of 6 questions" in note
    assert "row 9" in note


def test_the_model_is_left_in_the_mode_it_was_in(model, encoder, prepared):
    model.train(True)
    quick(model, encoder, prepared)
    assert model.training
    model.train(False)
    quick(model, encoder, prepared)
    assert not model.training
