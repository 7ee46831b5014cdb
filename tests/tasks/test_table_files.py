"""Tables and array files: what is encoded and scaled, and each mistake told in one line."""

import numpy as np
import pandas as pd
import pytest
import torch

from evoloss.errors import UserError
from evoloss.tasks.registry import load_task


@pytest.fixture
def frame():
    draws = np.random.default_rng(0)
    size = draws.normal(80, 20, 50)
    return pd.DataFrame(
        {
            "size": size,
            "rooms": draws.integers(1, 6, 50),
            "town": draws.choice(["Arles", "Bonn", "Cork"], 50),
            "new": draws.random(50) < 0.5,
            "price": 3 * size + draws.normal(0, 1, 50),
            "sold": draws.choice(["no", "yes"], 50),
        }
    )


def saved(frame, tmp_path, ending="csv"):
    path = tmp_path / f"houses.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    return str(path)


def parts(task):
    episodes = task.episodes
    return episodes.train, episodes.validation, episodes.held_out_test


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_regression_from_a_table(frame, tmp_path, ending):
    task = load_task(saved(frame, tmp_path, ending), target="price")
    train, validation, test = parts(task)
    assert [len(data) for data in parts(task)] == [30, 10, 10]
    assert train.x.shape[1] == 1 + 1 + 3 + 1 + 2
    for values in (train.x, train.y):
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones(values.shape[1]))
    assert max(abs(validation.y.mean()), abs(test.y.mean())) > 1e-4
    assert (task.output, task.metric.name, task.network_name) == ("identity", "mse", "mlp:64,64")
    assert task.name == "houses"
    assert "target 'price': regression; --kind classification to change that" in task.notes
    assert "text column 'town' encoded as 3 one-hot columns (Arles, Bonn, Cork)" in task.notes


def test_the_rows_keep_their_targets(frame, tmp_path):
    train = load_task(saved(frame[["size", "price"]], tmp_path), target="price").episodes.train
    assert np.corrcoef(train.x[:, 0], train.y[:, 0])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("column", "kind", "found", "classes"),
    [
        ("sold", None, "classification", 2),
        ("new", None, "classification", 2),
        ("rooms", None, "classification", 5),
        ("rooms", "regression", "regression", 1),
        ("new", "regression", "regression", 1),
        ("size", None, "regression", 1),
    ],
)
def test_the_kind_is_found_and_told(frame, tmp_path, column, kind, found, classes):
    task = load_task(saved(frame, tmp_path), target=column, kind=kind)
    train = task.episodes.train
    assert train.y.shape[1] == classes
    assert task.output == ("softmax" if found == "classification" else "identity")
    note = next(note for note in task.notes if note.startswith(f"target '{column}': {found}"))
    assert ("--kind" in note) == (kind is None)


def test_whole_numbers_with_a_missing_one_are_still_classes(frame, tmp_path):
    frame["rooms"] = frame["rooms"].astype("Int64")
    frame.loc[4, "rooms"] = pd.NA
    for ending in ("csv", "parquet"):
        path = saved(frame, tmp_path, ending)
        task = load_task(path, target="rooms", drop_missing=True)
        assert task.episodes.train.y.shape[1] == 5
        assert "1 row with missing or infinite values dropped" in task.notes


def test_dropping_rows(frame, tmp_path):
    frame.loc[[3, 16], "price"] = np.nan
    frame.loc[[16, 30], "town"] = None
    frame.loc[9, "size"] = np.inf
    task = load_task(saved(frame, tmp_path), target="price", drop_missing=True)
    assert sum(len(data) for data in parts(task)) == 46
    assert "4 rows with missing or infinite values dropped" in task.notes
    assert all(data.x.isfinite().all() and data.y.isfinite().all() for data in parts(task))


def test_equal_rows_are_in_the_same_part(frame, tmp_path):
    doubled = pd.concat([frame, frame])
    sets = [
        {tuple(row.tolist()) for row in torch.cat([data.x, data.y], 1)}
        for data in parts(load_task(saved(doubled, tmp_path), target="price"))
    ]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 50


def complaint(path, **arguments):
    with pytest.raises(UserError) as caught:
        load_task(path, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files_and_unknown_formats(frame, tmp_path):
    path = saved(frame, tmp_path)
    assert "(did you mean 'houses.csv'?)" in complaint(path.replace("houses", "house"), target="a")
    other = tmp_path / "houses.xlsx"
    other.write_text("")
    message = complaint(str(other), target="price")
    assert "unknown format: the formats are .csv, .parquet and .npz" in message
    assert "is a file itself" in complaint(path, target="price", data_dir=tmp_path)


def test_columns(frame, tmp_path):
    path = saved(frame, tmp_path)
    assert "with --target: 'size', 'rooms'" in complaint(path)
    assert "has no column 'prices' (did you mean 'price'?)" in complaint(path, target="prices")
    message = complaint(path, target="zzz")
    assert "has no column 'zzz': it has size, rooms, town, new, price, sold" in message
    alone = saved(frame[["price"]], tmp_path)
    assert "no columns besides the target" in complaint(alone, target="price")


def test_missing_and_infinite_values(frame, tmp_path):
    broken = frame.copy()
    broken.loc[[3, 16, 30, 40], "price"] = np.nan
    assert complaint(saved(broken, tmp_path), target="price") == (
        "target column 'price' has 4 missing values (rows 4, 17, 31, …): "
        "drop them with --drop-missing, or fill them"
    )
    broken.loc[5, "price"] = -np.inf
    message = complaint(saved(broken, tmp_path), target="price")
    assert "has 5 missing or infinite values (rows 4, 6, 17, …)" in message
    broken = frame.copy()
    broken.loc[9, "size"] = np.inf
    message = complaint(saved(broken, tmp_path), target="price")
    assert message.startswith("column 'size' has 1 infinite value (row 10):")
    broken = frame.copy()
    broken.loc[9, "town"] = None
    assert "column 'town' has 1 missing value (row 10)" in complaint(
        saved(broken, tmp_path), target="price"
    )


def test_unlearnable_targets(frame, tmp_path):
    frame["same"], frame["one"], frame["seven"] = 7.5, "only", 7
    path = saved(frame, tmp_path)
    assert "target column 'same' is constant (7.5 in all 50 rows)" in complaint(path, target="same")
    assert "has one class only ('only' in all 50 rows)" in complaint(path, target="one")
    assert "has one class only ('7' in all 50 rows)" in complaint(path, target="seven")
    message = complaint(path, target="town", kind="regression")
    assert "target column 'town' is not numeric (such as '" in message
    assert "use --kind classification" in message
    message = complaint(path, target="size", kind="classification")
    assert "has 1 distinct row: every class needs at least 5" in message


def test_too_few_rows(frame, tmp_path):
    message = complaint(saved(frame[:3], tmp_path), target="price")
    assert message.endswith("houses.csv' has 3 rows: a task needs at least 10")
    frame.loc[:44, "size"] = np.nan
    message = complaint(saved(frame, tmp_path), target="price", drop_missing=True)
    assert "has 5 rows after 45 with missing values were dropped" in message
    frame = pd.DataFrame({"a": np.arange(40), "b": ["x"] * 37 + ["y"] * 3})
    message = complaint(saved(frame, tmp_path), target="b")
    assert "class 'y' of" in message
    assert "has 3 distinct rows" in message


def test_columns_that_are_no_numbers(frame, tmp_path):
    frame["code"] = [f"c{number}" for number in range(50)]
    message = complaint(saved(frame, tmp_path), target="price")
    assert "column 'code' is text with 50 distinct values (such as 'c0')" in message
    frame["code"] = pd.Timestamp("2020-01-01")
    assert "column 'code' is of type datetime" in complaint(
        saved(frame, tmp_path, "parquet"), target="price"
    )


@pytest.mark.parametrize("content", [b"", b'a,b\n1,2\n3,4,5\n"', b"\xff\xfe\x00a", b"PAR1 torn"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_broken_tables(tmp_path, content, ending):
    path = tmp_path / f"broken.{ending}"
    path.write_bytes(content)
    message = complaint(str(path), target="a")
    assert "broken" in message


@pytest.fixture
def arrays():
    draws = np.random.default_rng(1)
    return {"x": draws.normal(3, 2, (40, 4)), "y": draws.integers(0, 3, 40)}


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return str(tmp_path / "data.npz")


def test_arrays(tmp_path, arrays):
    task = load_task(npz(tmp_path, **arrays))
    assert (task.output, task.episodes.train.y.shape[1]) == ("softmax", 3)
    assert task.episodes.train.x.std(0, correction=0).numpy() == pytest.approx(np.ones(4), abs=1e-5)
    several = load_task(npz(tmp_path, x=arrays["x"], y=arrays["x"][:, :2] * 2))
    assert (several.output, several.episodes.train.y.shape[1]) == ("identity", 2)
    flat = load_task(npz(tmp_path, x=arrays["x"][:, 0], y=arrays["x"][:, 1:2]))
    assert flat.episodes.train.x.shape[1:] == flat.episodes.train.y.shape[1:] == (1,)
    one_hot = load_task(npz(tmp_path, x=arrays["x"], y=np.eye(3)[arrays["y"]]),
                        kind="classification")  # fmt: skip
    assert torch.equal(one_hot.episodes.train.y, task.episodes.train.y)


def test_images_in_arrays_are_scaled_as_a_whole(tmp_path, arrays):
    x = np.random.default_rng(2).integers(0, 9, (40, 1, 12, 12))
    task = load_task(npz(tmp_path, x=x, y=arrays["y"]), network="lenet5")
    assert len(task.episodes.train.x.unique()) == 9


def test_given_parts(tmp_path, arrays):
    x, y = arrays["x"], arrays["y"]
    given = {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]}
    task = load_task(npz(tmp_path, **given))
    assert [len(data) for data in parts(task)] == [24, 6, 10]
    three = given | {"x_train": x[:20], "y_train": y[:20], "x_val": x[20:30], "y_val": y[20:30]}
    train, validation, test = parts(load_task(npz(tmp_path, **three)))
    assert (len(train), len(validation), len(test)) == (20, 10, 10)
    expected = (x[20:30] - x[:20].mean(0)) / x[:20].std(0)
    np.testing.assert_allclose(validation.x, expected, rtol=1e-4, atol=1e-5)
    leaky = three | {"x_test": x[15:], "y_test": y[15:]}
    assert "5 training rows occur in the test data too" in complaint(npz(tmp_path, **leaky))
    empty = three | {"x_val": x[:0], "y_val": y[:0]}
    assert "has 0 validation rows" in complaint(npz(tmp_path, **empty))


def test_wrong_arrays(tmp_path, arrays):
    x, y = arrays["x"], arrays["y"]
    assert "lacks y: name the arrays x and y" in complaint(npz(tmp_path, x=x))
    assert "lacks x_train, y_train, x_test, y_test" in complaint(npz(tmp_path, a=x))
    assert "y of shape (39,)" in complaint(npz(tmp_path, x=x, y=y[1:]))
    assert "x is <U1" in complaint(npz(tmp_path, x=np.full((40, 1), "a"), y=y))
    assert "leave --target out" in complaint(npz(tmp_path, **arrays), target="y")
    assert "cannot be read as .npz" in complaint(npz(tmp_path, x=np.array([None]), y=y))
    broken = x.copy()
    broken[[2, 7], 1] = np.nan, np.inf
    message = complaint(npz(tmp_path, x=broken, y=y))
    assert "has 2 missing or infinite values (rows 3, 8)" in message
    task = load_task(npz(tmp_path, x=broken, y=y), drop_missing=True)
    assert sum(len(data) for data in parts(task)) == 38
    shapes = {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:, :2], "y_test": y[30:]}
    assert "differ in shape" in complaint(npz(tmp_path, **shapes))
    assert "not one-hot" in complaint(npz(tmp_path, x=x, y=x), kind="classification")
    assert "is constant (1 in all 40 rows)" in complaint(
        npz(tmp_path, x=x, y=np.ones(40)), kind="regression"
    )
    (tmp_path / "data.npz").write_bytes(b"PK torn")
    assert "cannot be read as .npz" in complaint(str(tmp_path / "data.npz"))
