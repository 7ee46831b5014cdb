"""A tiny language model that half knows some fictitious authors, for several test modules."""

import json
from dataclasses import replace
from functools import cache

import torch
import transformers

from evoloss.unlearn.data.example import Choice, DataSet, Example, UnlearningData
from evoloss.unlearn.fiction import authors
from evoloss.unlearn.small_model import tokenizer_of

CONTEXT = 64
LETTERS = (
    "The following are multiple choice questions (with answers). A. B. C. D. Answer: Question:"
)


@cache
def data():
    """Every part that there is a metric for."""
    people = authors(9, seed=0)

    def rows(name, *chosen):
        return DataSet(name, tuple(each for person in chosen for each in people[person]))

    def plain(each):
        return replace(each, answer=each.paraphrased_answer, paraphrased_answer=None)

    def continued(each):
        first, *rest = f"{each.paraphrased_answer} {each.answer}".split()
        return Example(first, " ".join(rest), continues=True)

    def question(number, each):
        values = [text.rstrip(".").split()[-1] for text in (each.answer, *each.perturbed[:3])]
        return Choice(each.prompt, tuple(values[-number % 4 :] + values[: -number % 4]), number % 4)

    facts = {
        name: DataSet(name, tuple(map(plain, people[number])))
        for number, name in ((7, "real_authors"), (8, "world_facts"))
    }
    probes = facts | {
        "forget_verbmem": DataSet("verbmem", tuple(map(continued, people[0]))),
        "forget_knowmem": rows("knowmem", 1),
        "retain_knowmem": rows("knowmem", 2),
    }
    choices = {
        name: DataSet(name, tuple(question(n, each) for n, each in enumerate(people[person])))
        for name, person in (("wmdp_bio", 0), ("mmlu", 3))
    }
    forget, retain, holdout = rows("forget", 0, 1), rows("retain", 2, 3, 4), rows("holdout", 5, 6)
    return UnlearningData("fiction", forget, retain, holdout, probes, choices)


@cache
def tokenizer():
    sets = (data().forget, data().retain, data().holdout, *data().probes.values())
    examples = [each for rows in sets for each in rows]
    texts = [t for e in examples for t in (e.prompt, e.answer, e.paraphrased_answer, *e.perturbed)]
    return tokenizer_of([*filter(None, texts), LETTERS])


def ids(example, answer=None, end=True):
    """Tokens before the answer, and the answer's, without any of our code."""
    words = tokenizer()
    before = example.prompt if example.continues else f"Question: {example.prompt}\nAnswer:"
    after = words(f" {answer or example.answer}").input_ids
    return words(before).input_ids, after + [words.eos_token_id] * (end and not example.continues)


@cache
def _weights(steps, known):
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer()), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return config, teach(transformers.LlamaForCausalLM(config), steps, known).state_dict()


def teach(model, steps, known=("forget", "retain")):
    """The model, taught these sets."""
    rows = [ids(each) for name in known for each in getattr(data(), name)]
    width = max(len(before) + len(after) for before, after in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full_like(tokens, -100)
    for place, (before, after) in enumerate(rows):
        whole = torch.tensor(before + after)
        tokens[place, : len(whole)] = whole
        labels[place, len(before) : len(whole)] = whole[len(before) :]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        optimiser.step()
    return model


def model(steps=25, known=("forget", "retain")):
    """One that was taught these sets, a new one with each call."""
    config, weights = _weights(steps, known)
    made = transformers.LlamaForCausalLM(config)
    made.load_state_dict(weights)
    return made.eval()


def stir(adapters, size=0.05):
    """Different adapters for each candidate."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.a.normal_(0, 0.2)
            layer.b.normal_(0, size)


def saved(folder, **taught):
    """A folder with a model and the tokenizer, as they come from the hub."""
    model(**taught).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def rows_file(path, rows):
    """A set as a file of JSON lines."""
    columns = {
        "question": "prompt", "answer": "answer", "paraphrased_question": "paraphrased_prompt",
        "paraphrased_answer": "paraphrased_answer", "perturbed_answer": "perturbed",
    }  # fmt: skip
    lines = ({key: getattr(each, name) for key, name in columns.items()} for each in rows)
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path)
