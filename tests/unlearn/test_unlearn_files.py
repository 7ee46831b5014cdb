"""Reading prompt/response and plain-text files: what is found, what is told, what is refused."""

import json

import pandas as pd
import pytest

from evoloss.errors import UserError
from evoloss.unlearn.data.example import Choice, Example, normalised
from evoloss.unlearn.data.examples import ANSWER_KEYS, PROMPT_KEYS, read_choices, read_examples
from evoloss.unlearn.data.sets import from_files

TWO = [{"prompt": "Who?", "response": "Ada."}, {"prompt": "Where?", "response": "London."}]


def lines(path, rows):
    """Writes JSON lines; a row that is a string is written as it is."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("prompt", PROMPT_KEYS)
@pytest.mark.parametrize("answer", ANSWER_KEYS)
def test_the_usual_names_of_prompt_and_answer_are_known(tmp_path, prompt, answer):
    rows = [{prompt: " Who? ", answer: "Ada.\n"}, {answer: "London.", prompt: "Where?"}]
    found = read_examples(lines(tmp_path / "f.jsonl", rows))
    assert found.rows == (Example("Who?", "Ada."), Example("Where?", "London."))
    assert found.notes == ()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "array"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    rows = [{"question": "Qu’est-ce\u2028?", "answer": "é"}, {"question": "b", "answer": "c"}]
    path = tmp_path / f"f.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif suffix == "array":
        path = tmp_path / "f.json"
        path.write_text("\ufeff" + json.dumps(rows, indent=2, ensure_ascii=False), "utf-8")
    else:
        lines(path, [json.dumps(rows[0], ensure_ascii=False), json.dumps(rows[1])])
    found = read_examples(path)
    assert [(each.prompt, each.answer) for each in found] == [
        ("Qu’est-ce\u2028?", "é"),
        ("b", "c"),
    ]
    assert [each.row for each in found] == [1, 2]


def test_plain_texts_and_instructions_with_input(tmp_path):
    rows = [
        {"text": "Once upon a time."},
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Say hello.", "input": "", "output": "hello"},
    ]
    text, first, second = read_examples(lines(tmp_path / "f.jsonl", rows))
    assert text == Example("", "Once upon a time.", continues=True)
    assert first.prompt == "Translate.\n\nchat"
    assert second.prompt == "Say hello."


def test_repeated_rows_are_dropped_and_unused_keys_told(tmp_path):
    rows = [*TWO, "", TWO[0] | {"id": 3}, {"prompt": "who", "response": "Ada."}]
    found = read_examples(lines(tmp_path / "f.jsonl", rows))
    assert [each.row for each in found] == [1, 2, 5]
    repeated, unused = found.notes
    assert "dropped 1 row that repeats an earlier one (row " in repeated
    assert "row 4" in repeated
    assert "keys id are not used" in unused


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        (TWO[:1], "single row"),
        ([TWO[0], TWO[0]], "repeats one row"),
        ([TWO[0], '{"prompt": "a", }'], "line 2 is not JSON.*column"),
        ([TWO[0], "", "[" * 100_000], "line 3 is nested"),
        ([TWO[0], "[1]"], "line 2 is a list"),
        ([TWO[0], f'{{"id": {"7" * 5000}}}'], "line 2 has a whole number of more than 4300 digits"),
        ([*TWO, {"Q": "a", "A": "b"}], "row 3 has the keys Q, A: it needs prompt/question"),
        ([*TWO, {}], "row 3 has the keys none"),
        ([*TWO, {"prompt": "a"}], "row 3 has the keys prompt"),
        ([*TWO, {"prompt": "a", "question": "b", "answer": "c"}], "prompt and question and answer"),
        ([*TWO, {"prompt": "a", "output": "b", "answer": "c"}], "leave one prompt and one answer"),
        ([*TWO, {"prompt": "a", "answer": " "}], "row 3: 'answer' is empty"),
        ([*TWO, {"prompt": None, "answer": "b"}], "row 3: 'prompt' is a NoneType"),
        ([*TWO, {"prompt": "a", "answer": 7}], "row 3: 'answer' is a int"),
        ([*TWO, r'{"prompt": "a", "answer": "\ud800"}'], "half a character"),
        ([*TWO, {"text": ""}], "'text' is empty"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_examples(lines(tmp_path / "f.jsonl", rows))


def test_a_bad_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        read_examples(tmp_path)
    (tmp_path / "f.txt").write_text("a")
    with pytest.raises(UserError, match="unknown format"):
        read_examples(tmp_path / "f.txt")
    (tmp_path / "f.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_examples(tmp_path / "f.jsonl")
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="Parquet"):
        read_examples(tmp_path / "f.parquet")
    (tmp_path / "f.json").write_text('[{"text": "a"},\n{"text": }]')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_examples(tmp_path / "f.json")
    (tmp_path / "f.json").write_text('[{"text": "a"},\n{"text": %s}]' % ("7" * 5000))
    with pytest.raises(UserError, match=r"f.json' has a whole number of more than 4300 digits"):
        read_examples(tmp_path / "f.json")


def test_multiple_choice_rows_are_checked(tmp_path):
    good = {"question": "Which?", "choices": ["a", "b"], "answer": 1}
    path = tmp_path / "f.jsonl"
    found = read_choices(lines(path, [good, good | {"answer": 0}]))
    assert found.rows[0] == Choice("Which?", ("a", "b"), 1)
    for bad, message in [
        ({"answer": 2}, "not an index of 0 to 1"),
        ({"answer": "B"}, "not an index"),
        ({"answer": True}, "not an index"),
        ({"choices": ["a"]}, "has 1 entry"),
        ({"choices": ["a", None]}, "NoneType"),
    ]:
        with pytest.raises(UserError, match=f"row 2: .*{message}"):
            read_choices(lines(path, [good, good | bad]))
    with pytest.raises(UserError, match="choices is missing"):
        read_choices(lines(path, [{"question": "a", "answer": "b"}]))


def test_sets_that_share_a_question_are_refused_with_the_rows(tmp_path):
    forget = lines(tmp_path / "forget.jsonl", [*TWO, {"prompt": "When?", "response": "1815"}])
    rows = [{"prompt": "Why?", "response": "b"}, {"prompt": " WHEN ", "response": "never"}]
    retain = lines(tmp_path / "retain.jsonl", rows)
    with pytest.raises(UserError, match=r"forget and retain set share 1 .*row 3 .*row 2 of"):
        from_files(forget, retain)
    with pytest.raises(UserError, match=r"forget and holdout set share 3 .*rows 1, 2, 3 "):
        from_files(forget, None, forget)
    lines(retain, [rows[0], {"prompt": "How?", "response": "c"}])
    with pytest.raises(UserError, match=r"retain and holdout set share 2 .*rows 1, 2 of"):
        from_files(forget, retain, retain)
    data = from_files(forget, retain)
    assert (data.name, len(data.forget), len(data.retain), data.holdout) == ("forget", 3, 2, None)
    assert from_files(forget).retain is None


def test_overlapping_texts_and_paraphrases_are_refused(tmp_path):
    texts = [{"text": "Once upon a time."}, {"text": "Twice."}]
    forget = lines(tmp_path / "f.jsonl", texts)
    retain = lines(tmp_path / "r.jsonl", [{"text": "once upon a time"}, {"text": "Thrice."}])
    with pytest.raises(UserError, match="share 1 question or text:"):
        from_files(forget, retain)
    rows = [*TWO, {"prompt": "Name her.", "paraphrased_prompt": "Her name?", "response": "Ada"}]
    lines(forget, rows)
    lines(retain, [{"prompt": "her name", "response": "Ada"}, {"prompt": "x", "response": "y"}])
    with pytest.raises(UserError, match="share 1"):
        from_files(forget, retain)


def test_normalised_texts_are_equal_however_they_are_typed():
    assert normalised("  Who’s Straße?\n") == normalised("WHO'S STRASSE")
    assert normalised("ﬁne") == "fine"
    assert normalised("?!") == "?!" != normalised("...")
