"""Tokens of examples: the same prompt everywhere, and only the answer to be predicted."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from evoloss.errors import UserError
from evoloss.unlearn.data.example import DataSet, Example
from evoloss.unlearn.tokens import PLAIN_TEMPLATE, Encoder, padded, padded_prompts

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
)
# As Llama 2 writes turns: a space before the answer, which its first word takes in.
SPACED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
DATED = "Today is {{ date_string }}. " + CHATML
CORPUS = ["Question: who was born in London?\nAnswer: Ada Lovelace was born in London."] * 8
ASKED = Example("Who was born?", "Ada Lovelace.", row=3)


def tokenizer(template=None, bos=False, **names):
    """A byte-level BPE tokenizer, trained on a sentence."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>"]
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>"} | names
    made = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    made.chat_template = template
    return made


def text(made, ids):
    return made.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("bos", [False, True])
def test_without_a_template_a_plain_one_is_used_and_said(bos):
    made = tokenizer(bos=bos)
    encoder = Encoder(made)
    row = encoder.encode(ASKED)
    begin = "<s>" if bos else ""
    assert text(made, row.prompt) == begin + PLAIN_TEMPLATE.format(prompt=ASKED.prompt)
    assert text(made, row.answer) == " Ada Lovelace."
    assert made.decode(row.ids[-1]) == "</s>"
    assert "no chat template" in encoder.note
    assert list(row.ids[:-1]) == made(f"Question: {ASKED.prompt}\nAnswer: {ASKED.answer}").input_ids


def test_with_a_template_the_tokens_are_those_of_the_rendered_dialogue():
    made = tokenizer(CHATML, bos=True)  # the template writes the first token, too
    encoder = Encoder(made)
    row = encoder.encode(ASKED)
    turns = [("user", ASKED.prompt), ("assistant", ASKED.answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    rendered = made.apply_chat_template(messages, tokenize=False)
    assert text(made, row.ids) + "\n" == rendered
    assert row.ids == tuple(made(rendered, add_special_tokens=False).input_ids)[: len(row.ids)]
    assert text(made, row.prompt).endswith("<|im_start|>assistant\n")
    assert text(made, row.answer) == ASKED.answer
    assert row.ids[-1] == encoder.end == made.convert_tokens_to_ids("<|im_end|>")
    assert "chat template" in encoder.note


def test_a_space_that_the_template_writes_belongs_to_the_answer():
    made = tokenizer(SPACED)
    row = Encoder(made).encode(ASKED)
    assert text(made, row.prompt) == "[INST] Who was born? [/INST]"
    assert text(made, row.answer) == " Ada Lovelace."
    assert made.decode(row.ids[-1]) == "</s>"


@pytest.mark.parametrize("template", [None, CHATML, SPACED, DATED])
@pytest.mark.parametrize("continues", [False, True])
def test_generation_is_given_what_training_was(template, continues):
    encoder = Encoder(tokenizer(template, bos=True))
    example = Example("born in Lond", "on", continues=continues)
    for answer in ("on", "Ada", "?"):
        assert encoder.encode(example.answered(answer)).prompt == encoder.prompt(example)


def test_the_prompt_keeps_its_tokens_where_the_answer_would_join_the_last_one():
    made = tokenizer("{% for m in messages %}{{ m['content'] }} Lon{% endfor %}")
    row = Encoder(made).encode(Example("born in", "don."))
    assert made(" London").input_ids != made(" Lon").input_ids + made("don").input_ids
    assert list(row.prompt) == made("born in Lon").input_ids
    assert text(made, row.answer) == "don."


def test_a_template_that_writes_the_date_writes_the_same_every_day():
    made = tokenizer(DATED)
    assert text(made, Encoder(made).prompt(ASKED)).startswith("Today is 10 Apr 2025.")


def test_running_text_has_no_template_no_end_and_nothing_to_predict_its_first_token_from():
    told = Example("", "Ada was born in London.", continues=True)
    for bos in (False, True):
        made = tokenizer(CHATML, bos)
        row = Encoder(made).encode(told)
        assert text(made, row.ids) == ("<s>" if bos else "") + told.answer
        assert (row.start, row.ends) == (1, False)
    verbatim = Example("Ada was", "born in London.", continues=True)
    row = Encoder(made).encode(verbatim)
    assert text(made, row.prompt) == "<s>Ada was"
    assert text(made, row.answer) == " born in London."


def test_rows_are_padded_to_the_longest_and_only_answers_are_marked():
    made = tokenizer()
    encoder = Encoder(made)
    assert made.pad_token_id is None
    assert encoder.pad == made.eos_token_id
    assert Encoder(tokenizer(pad_token="<pad>")).pad == made.convert_tokens_to_ids("<pad>")
    rows = [encoder.encode(each) for each in (ASKED, Example("Where?", "In London, in 1815."))]
    batch = padded(rows, encoder.pad)
    assert batch.tokens.shape == (2, max(len(row.ids) for row in rows))
    for place, row in enumerate(rows):
        length = len(row.ids)
        assert batch.tokens[place, :length].tolist() == list(row.ids)
        assert (batch.tokens[place, length:] == encoder.pad).all()
        assert batch.attention[place].sum() == length
        marked = batch.tokens[place][batch.answer[place]].tolist()
        assert marked == [*row.answer, encoder.end]
        assert not batch.answer[place, : row.start].any()


def test_prompts_are_padded_at_the_beginning():
    tokens, attention = padded_prompts([(5, 6, 7), (8,)], 0)
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert attention.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert tokens.dtype == torch.int64


def test_an_answer_longer_than_the_context_is_refused_with_its_row():
    encoder = Encoder(tokenizer())
    data = DataSet("f.jsonl", (ASKED, Example("Where?", "In London. " * 20, row=8)))
    length = len(encoder.encode(ASKED).ids)
    with pytest.raises(UserError, match=r"'f.jsonl': 1 of 2 .* into \d+ tokens \(row 8; the long"):
        encoder.encode_set(data, length)
    assert encoder.encode_set(DataSet("f", (ASKED,)), length).rows[0].example == 0
    for most, way_out in ((length + 1, "choose a longer context"), (length, "takes no more")):
        with pytest.raises(UserError, match=way_out):
            Encoder(tokenizer(), most).encode_set(data, length)


@pytest.mark.parametrize("bos", [False, True])
def test_a_text_longer_than_the_context_is_cut_into_pieces_and_said(bos):
    made = tokenizer(bos=bos)
    encoder = Encoder(made)
    told = [Example("", "Ada. " * size, continues=True, row=size) for size in (1, 40)]
    found = encoder.encode_set(DataSet("f.jsonl", tuple(told)), 16)
    pieces = [row for row in found.rows if row.example == 1]
    assert max(len(row.ids) for row in found.rows) <= 16
    assert max(len(row.ids) for row in pieces) - min(len(row.ids) for row in pieces) <= 1
    assert "".join(text(made, row.ids[bos:]) for row in pieces) == told[1].answer
    assert all(row.start == 1 and not row.ends for row in pieces)
    assert "cut 1 text into pieces of at most 16 tokens (row 40)" in found.notes[0]


def test_tokenizers_that_cannot_serve_are_refused():
    with pytest.raises(UserError, match="set its eos_token"):
        Encoder(tokenizer(eos_token=None))
    with pytest.raises(UserError, match="chat template fails: no assistants"):
        Encoder(tokenizer("{{ raise_exception('no assistants') }}"))
    with pytest.raises(UserError, match="drops what the assistant says"):
        Encoder(tokenizer("{{ messages[0]['content'] }}"))
    with pytest.raises(UserError, match="row 4: the tokenizer leaves nothing"):
        Encoder(tokenizer()).encode(Example("", "a", continues=True, row=4))
