"""Local NumPy archives and Parquet tables, good and bad."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fedmtl.config import parse_config
from fedmtl.data.build import build_data, data_options
from fedmtl.data.files import files
from fedmtl.errors import ConfigError, DataError

TARGETS = {"kind": "classification", "sick": "binary", "price": "regression"}


def columns(rows: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "height": rng.normal(170, 10, rows),
        "weight": rng.integers(50, 90, rows),
        "kind": rng.choice(["apple", "pear", "quince"], rows),
        "sick": rng.random(rows) < 0.5,
        "price": rng.exponential(5, rows).astype(np.float32),
        "farm": rng.choice(["east", "north", "west"], rows),
    }


def write(path, table):
    if path.suffix == ".npz":
        np.savez(path, **table)
    else:
        pq.write_table(pa.table({name: pa.array(list(column)) for name, column in table.items()}), path)
    return str(path)


@pytest.fixture(params=["fruit.npz", "fruit.parquet"])
def path(request, tmp_path):
    return write(tmp_path / request.param, columns())


def test_a_file_becomes_tasks_features_and_users(path):
    pool = files(0, 3, path=path, targets=TARGETS, client_column="farm")
    assert [(task.name, task.kind, task.outputs) for task in pool.tasks] == [
        ("kind", "classification", 3),
        ("sick", "binary", 1),
        ("price", "regression", 1),
    ]
    assert pool.train.features.shape == (32, 2)
    assert pool.test.features.shape == (8, 2)
    assert [target.dtype for target in pool.train.targets] == [torch.int64, torch.float32, torch.float32]
    # float32 means of 32 standardised values.
    assert torch.allclose(pool.train.features.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(pool.train.targets[2].std(correction=0), torch.tensor(1.0), atol=1e-6)
    assert set(pool.natural) == {0, 1, 2}
    assert len(pool.natural) == 32


def test_both_kinds_of_file_give_the_same_bits(tmp_path):
    pools = [
        files(0, 3, path=write(tmp_path / name, columns()), targets=TARGETS, client_column="farm")
        for name in ("a.npz", "a.parquet")
    ]
    assert torch.equal(pools[0].train.features, pools[1].train.features)
    assert all(torch.equal(a, b) for a, b in zip(pools[0].test.targets, pools[1].test.targets, strict=True))


def test_values_stay_as_they_are_without_standardising(path):
    table = columns()
    pool = files(1, 3, path=path, targets={"price": "regression"}, features=["weight"], standardise=False)
    seen = torch.cat([pool.train.features, pool.test.features])[:, 0]
    assert sorted(seen.tolist()) == sorted(table["weight"].tolist())
    assert sorted(torch.cat([pool.train.targets[0], pool.test.targets[0]]).tolist()) == sorted(table["price"].tolist())


def test_a_test_file_is_scaled_by_the_training_file(tmp_path):
    train = write(tmp_path / "train.npz", {"x": np.array([0.0, 2.0, 4.0]), "y": np.array([0, 1, 2])})
    test = write(tmp_path / "test.npz", {"x": np.array([2.0, 6.0]), "y": np.array([1, 1])})
    pool = files(0, 1, path=train, test_path=test, targets={"y": "classification"})
    deviation = np.sqrt(8 / 3)
    assert torch.allclose(pool.test.features[:, 0], torch.tensor([0.0, 4 / deviation], dtype=torch.float32))
    assert pool.tasks[0].outputs == 3
    assert len(pool.train) == 3


@pytest.mark.parametrize("name", ["a.npz", "a.parquet"])
def test_images_keep_their_shape_and_tokens_their_values(tmp_path, name):
    images = np.random.default_rng(0).random((10, 1, 4, 4))
    words = np.random.default_rng(0).integers(0, 30, (10, 6))
    label = np.arange(10) % 2
    if name.endswith("npz"):
        path = write(tmp_path / name, {"image": images, "words": words, "y": label})
    else:
        path = str(tmp_path / name)
        pq.write_table(pa.table({"image": images.tolist(), "words": words.tolist(), "y": label}), path)
    pictures = files(0, 1, path=path, targets={"y": "classification"}, features=["image"])
    assert pictures.train.features.shape == (8, 1, 4, 4)
    text = files(0, 1, path=path, targets={"y": "binary"}, features=["words"], tokens=True)
    assert text.train.features.dtype == torch.int64
    assert text.train.features.max() < 30


def test_a_file_is_chosen_in_the_configuration(path):
    overrides = [
        "data.source=files",
        f"data.path={path}",
        "data.targets={kind='classification:4', price='regression'}",
        "data.client_column=farm",
        "data.partition=natural",
        "data.clients=3",
    ]
    config = parse_config({}, overrides)
    data = build_data(config)
    assert data.clients == 3
    assert data.client_names == tuple(map(str, np.unique(columns()["farm"])))
    assert data.only("price").client_names == data.client_names
    assert build_data(parse_config({}, [*overrides, "data.partition=iid"])).client_names == ()
    assert data.tasks[0].outputs == 4
    assert data_options(config)["features"] == []


def assert_refused(message, error=DataError, **options):
    with pytest.raises(error, match=message):
        files(0, 2, **{"targets": TARGETS, **options})


def test_wrong_names_and_kinds_say_what_would_be_right(path):
    assert_refused(r"fruit.* has no column 'hight' .did you mean 'height'", path=path, features=["hight"])
    assert_refused(r"fruit.* has no column 'farn' .did you mean 'farm'", path=path, client_column="farn")
    assert_refused(
        r"targets\.sick = 'binari' is unknown .did you mean 'binary'",
        ConfigError,
        path=path,
        targets={"sick": "binari"},
    )
    assert_refused(r"targets\.kind = 'binary:2'", ConfigError, path=path, targets={"kind": "binary:2"})
    assert_refused(r"column 'farm': needs numbers, holds text", path=path)
    assert_refused(
        r"column 'price': needs whole numbers, holds float32|double|float64",
        path=path,
        targets={"price": "classification"},
    )
    for kind in ("binary", "classification:2"):
        message = r"column 'kind': holds 3 classes, apple, pear, quince; 2 are asked for"
        assert_refused(message, path=path, targets={"kind": kind})
    assert_refused("data.features: 'height' is named twice", ConfigError, path=path, features=["height", "height"])


def test_holes_in_the_data_are_named(tmp_path):
    holes = columns()
    holes["height"][7] = np.nan
    for name in ("a.npz", "a.parquet"):
        assert_refused(
            r"column 'height': the value in row \d+ is not a finite",
            path=write(tmp_path / name, holes),
            features=["height"],
        )
    nulls = str(tmp_path / "nulls.parquet")
    pq.write_table(pa.table({"height": [1.0, None], "sick": [True, False]}), nulls)
    assert_refused(r"column 'height': 1 values are missing", path=nulls, targets={"sick": "binary"})
    ragged = str(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"x": [[1.0], [1.0, 2.0]], "sick": [True, False]}), ragged)
    assert_refused(r"column 'x': its lists differ in length", path=ragged, targets={"sick": "binary"})
    negative = write(tmp_path / "negative.npz", {"x": np.arange(9) - 1, "y": np.arange(9) % 2})
    assert_refused(r"column 'x': holds -1", path=negative, targets={"y": "binary"}, tokens=True)


def test_unreadable_files_are_named(tmp_path):
    assert_refused("no.npz: there is no such file", path=str(tmp_path / "no.npz"))
    assert_refused("are read from .npz or .parquet, not from .csv", path=str(tmp_path / "no.csv"))
    for name, message in (("bad.npz", "is not a readable .npz archive"), ("bad.parquet", "is not a readable Parquet")):
        for content in (b"", b"nonsense" * 40):
            (tmp_path / name).write_bytes(content)
            assert_refused(message, path=str(tmp_path / name))
    whole = (tmp_path / "whole.npz", tmp_path / "whole.parquet")
    for path in whole:
        write(path, columns())
        path.write_bytes(path.read_bytes()[:-200])
        assert_refused("is not a readable", path=str(path))
    uneven = write(tmp_path / "uneven.npz", {"x": np.ones(3), "sick": np.array([0, 1])})
    assert_refused("columns differ in length: x 3, sick 2", path=uneven, targets={"sick": "binary"})
    empty = write(tmp_path / "empty.npz", {"x": np.ones(0), "sick": np.ones(0)})
    assert_refused("holds no examples", path=empty, targets={"sick": "binary"})
    one = write(tmp_path / "one.npz", {"x": np.ones(1), "sick": np.ones(1, dtype=int)})
    assert_refused("leaves a side empty", path=one, targets={"sick": "binary"})
    alone = write(tmp_path / "alone.npz", {"sick": np.ones(5, dtype=int)})
    assert_refused("must leave at least one column each", path=alone, targets={"sick": "binary"})


def test_a_target_is_no_feature(path):
    with pytest.raises(ConfigError, match=r"data.features: 'price' is a target"):
        files(0, 3, path=path, targets=TARGETS, features=["height", "price"])
