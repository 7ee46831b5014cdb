"""The layouts of TOFU, MUSE and WMDP: the real TOFU files, and files of the others' form."""

import json
from pathlib import Path

import pandas as pd
import pytest

from evoloss.errors import UserError
from evoloss.unlearn.data.benchmarks import NAMES, load

TOFU = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "tofu"
needs_tofu = pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU files are not here")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))


def texts(word):
    return [{"text": f"{word} {number}"} for number in range(4)]


def questions(word):
    return [{"question": f"{word} {n}?", "answer": f"{word} {n}"} for n in range(4)]


def choices(word):
    return [{"question": f"{word} {n}?", "choices": list("abcd"), "answer": n} for n in range(4)]


@needs_tofu
@pytest.mark.parametrize(("split", "forget", "retain"), [("01", 40, 3960), ("05", 200, 3800)])
def test_tofu_has_paraphrases_and_perturbed_answers_where_they_are_published(split, forget, retain):
    data = load(f"tofu:forget{split}", TOFU)
    assert (len(data.forget), len(data.retain)) == (forget, retain)
    assert all(len(each.perturbed) == 5 and each.paraphrased_prompt for each in data.forget)
    assert sum(bool(each.perturbed) for each in data.retain) == 400
    assert {name: len(rows) for name, rows in data.probes.items()} == {
        "real_authors": 100,
        "world_facts": 117,
    }
    text = (TOFU / f"retain{100 - int(split)}.json").read_text(encoding="utf-8")
    plain = [json.loads(line) for line in text.splitlines()]
    assert [(each.prompt, each.answer) for each in data.retain] == [
        (row["question"].strip(), row["answer"].strip()) for row in plain
    ]


@needs_tofu
def test_a_missing_set_says_how_to_get_it():
    with pytest.raises(UserError, match=r"no file forget10 .*hf download locuslab/TOFU .*--local"):
        load("tofu:forget10", TOFU)


def test_tofu_takes_its_holdout_set_if_it_is_there(tmp_path):
    for name in ("forget10", "retain90", "holdout10"):
        write(tmp_path / f"{name}.json", questions(name))
    more = {"paraphrased_answer": "so", "perturbed_answer": ["not so", "nor so"]}
    for name in ("forget10", "retain", "real_authors", "world_facts"):
        rows = [row | more for row in questions(name)]
        write(tmp_path / f"{name}_perturbed.json", rows)
    data = load("tofu:forget10", tmp_path)
    assert len(data.holdout) == 4
    assert data.forget.rows[0].perturbed == ("not so", "nor so")
    assert data.retain.rows[0].perturbed == ()


@pytest.mark.parametrize(
    ("corpus", "folder", "retain_qa"),
    [("news", ".", "retain_qa"), ("books", "MUSE-Books", "retain2_qa")],
)
def test_muse_in_the_published_layout(tmp_path, corpus, folder, retain_qa):
    home = tmp_path / folder
    for name in ("forget", "retain1", "retain2", "holdout"):
        write(home / "raw" / f"{name}-00000-of-00001.parquet", texts(name))
    write(home / "privleak/forget-00000-of-00002.parquet", texts("forget")[:2])
    write(home / "privleak/forget-00001-of-00002.parquet", texts("forget")[2:])
    write(home / "privleak/holdout.json", texts("holdout"))
    write(home / "knowmem/forget_qa-00000-of-00001.parquet", questions("forget"))
    write(home / "knowmem" / f"{retain_qa}-00000-of-00001.parquet", questions("retain"))
    rows = [{"prompt": f"start {n}", "gt": f"end {n}"} for n in range(3)]
    write(home / "verbmem/forget-00000-of-00001.parquet", rows)
    data = load(f"muse:{corpus}", tmp_path)
    assert data.notes == ()
    assert [each.answer for each in data.retain] == [row["text"] for row in texts("retain1")]
    assert [each.row for each in data.probes["forget_privleak"]] == [1, 2, 3, 4]
    verbatim = data.probes["forget_verbmem"].rows[0]
    assert (verbatim.prompt, verbatim.answer, verbatim.continues) == ("start 0", "end 0", True)
    assert not data.probes["retain_knowmem"].rows[0].continues


def test_wmdp_with_its_questions_and_mmlu(tmp_path):
    write(tmp_path / "bio_remove_dataset.jsonl", [r | {"doi": "x"} for r in texts("virus")])
    write(tmp_path / "bio-retain-corpus.jsonl", texts("leaf"))
    for domain in ("bio", "chem"):
        write(tmp_path / f"wmdp-{domain}/test-00000-of-00001.parquet", choices(domain))
    write(tmp_path / "mmlu/all/test-00000-of-00001.parquet", choices("history"))
    data = load("wmdp:bio", tmp_path)
    assert list(data.choices) == ["wmdp_bio", "wmdp_chem", "mmlu"]
    assert data.choices["wmdp_chem"].rows[3].answer == 3
    assert "doi" in data.notes[0]
    with pytest.raises(UserError, match=r"cyber-forget-corpus.*hf download cais/wmdp-corpora"):
        load("wmdp:cyber", tmp_path)


def test_wmdp_as_the_hub_lays_out_data_sets_of_several_configurations(tmp_path):
    for shard, word in enumerate(("virus", "worm")):
        write(tmp_path / f"cyber-forget-corpus/train-0000{shard}-of-00002.parquet", texts(word))
    write(tmp_path / "data/cyber-retain-corpus-00000-of-00001.parquet", texts("leaf"))
    write(tmp_path / "wmdp-cyber/test-00000-of-00001.parquet", choices("cyber"))
    data = load("wmdp:cyber", tmp_path)
    assert [each.answer for each in data.forget.rows][3:5] == ["virus 3", "worm 0"]
    assert data.retain.rows[0].answer == "leaf 0"


def test_sets_of_a_benchmark_are_checked_too(tmp_path):
    write(tmp_path / "bio-forget-corpus.jsonl", texts("leaf"))
    write(tmp_path / "bio-retain-corpus.jsonl", texts("leaf"))
    write(tmp_path / "wmdp-bio.jsonl", choices("bio"))
    with pytest.raises(UserError, match="forget and retain set share 4"):
        load("wmdp:bio", tmp_path)


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(UserError, match="did you mean 'tofu:forget05'"):
        load("tofu:forget5", tmp_path)
    with pytest.raises(UserError, match="no folder"):
        load(NAMES[0], tmp_path / "none")
