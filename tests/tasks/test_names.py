"""Surnames: folding, padding, repetitions, and names that must not stand in two parts."""

from pathlib import Path

import pytest
import torch

from evoloss.errors import UserError
from evoloss.tasks.names import ALPHABET, encode, fold
from evoloss.tasks.registry import load_task

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def decode(text):
    return "".join(ALPHABET[code - 1] for code in text.tolist() if code)


def parts(task):
    episodes = task.episodes
    return episodes.train, episodes.validation, episodes.held_out_test


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Ślusàrski", "slusarski"),
        ("  O'Néàl ", "o'neal"),
        ("Weiß", "weiss"),
        ("Marszałek", "marszalek"),
        ("Maxa/B", "maxab"),
        ("D’Angelo-Li", "d'angelo-li"),
        ("李", ""),
    ],
)
def test_folding(name, folded):
    assert fold(name) == folded


def test_texts_are_padded_on_the_right():
    assert encode(["abz", "'"]).tolist() == [[1, 2, 26], [28, 0, 0]]


@pytest.fixture
def folder(tmp_path):
    syllables = ["ka", "to", "ri", "mu", "se"]
    stems = [a + b for a in syllables for b in syllables]
    lists = {
        "Northern": [f"{stem}sen" for stem in stems] + ["Kato", "KATO", "Tómu"],
        "Southern": [f"{stem}lli" for stem in stems] + ["Kato", "Tomu"],
        "Eastern": [f"{stem}ov" for stem in stems[:12]],
    }
    for nationality, names in lists.items():
        (tmp_path / f"{nationality}.txt").write_text("\n".join(names) + "\n\n", encoding="utf-8")
    (tmp_path / "LICENSE").write_text("free")
    return tmp_path


def test_a_folder_of_lists(folder):
    task = load_task("names", data_dir=folder)
    assert task.network_name == "char-gru"
    assert (task.output, task.metric.name) == ("softmax", "error rate")
    pairs = [
        (decode(x), int(y.argmax()))
        for data in parts(task)
        for x, y in zip(data.x, data.y, strict=True)
    ]
    assert len(pairs) == len(set(pairs)) == 25 + 25 + 12 + 4  # KATO repeats Kato
    assert task.notes[0].startswith("67 names read, 1 repetition left out")
    assert task.notes[1].startswith("2 names stand under more than one nationality")
    assert task.episodes.train.x.dtype == torch.int64
    classes = dict(pairs)
    assert (classes["katoov"], classes["katosen"], classes["katolli"]) == (0, 1, 2)


def test_no_name_is_in_two_parts_under_any_split(folder):
    for seed in range(8):
        names = [{decode(x) for x in data.x} for data in parts(load_task("names", data_dir=folder,
                                                                         seed=seed))]  # fmt: skip
        assert sum(map(len, names)) == len(set.union(*names))


def test_the_parts_hold_every_nationality(folder):
    for data in parts(load_task("names", data_dir=folder)):
        assert (data.y.sum(0) > 0).all()


def test_errors_say_what_to_do(tmp_path, folder):
    with pytest.raises(UserError, match=r"names not found: .*give it as --data-dir"):
        load_task("names")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"not found in '.*empty' or '.*empty/names'"):
        load_task("names", data_dir=empty)
    with pytest.raises(UserError, match="network 'linear' takes numbers, but the inputs are text"):
        load_task("names", data_dir=folder, network="linear")
    (folder / "Rare.txt").write_text("One\nTwo\n")
    with pytest.raises(UserError, match=r"class 'Rare' of .* has 2 distinct rows"):
        load_task("names", data_dir=folder)
    (folder / "Rare.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"'.*Rare.txt' cannot be read as UTF-8"):
        load_task("names", data_dir=folder)


@pytest.mark.skipif(not (SHARED / "names").is_dir(), reason="the shared surnames are not here")
def test_the_real_surnames():
    task = load_task("names", data_dir=SHARED)
    sizes = [len(data) for data in parts(task)]
    assert task.episodes.train.y.shape[1] == 18
    assert [round(size / sum(sizes), 2) for size in sizes] == [0.6, 0.2, 0.2]
    names = [{decode(x) for x in data.x} for data in parts(task)]
    assert sum(map(len, names)) == len(set.union(*names))
