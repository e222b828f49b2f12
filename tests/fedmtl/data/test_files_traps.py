"""Files as they come: an index among the columns, large offsets, columns of no use."""

from __future__ import annotations

import datetime
import decimal
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fedmtl.data.files import files
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError

ROWS = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS)
Y = np.arange(ROWS) % 2


def npz(folder: Path, **columns: Any) -> str:
    path = folder / "table.npz"
    np.savez(path, **columns)
    return str(path)


def parquet(folder: Path, metadata: dict[str, str] | None = None, **columns: Any) -> str:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return str(path)


def read(path: str, kind: str = "binary", **options: Any) -> Pool:
    return files(0, 2, path=path, targets={"y": kind}, **options)


# An index that pandas wrote.


@pytest.mark.parametrize(
    ("write", "index"),
    [
        *itertools.product([npz, parquet], ["__index_level_0__", "__index_level_1__", "Unnamed: 0", "Unnamed: 0.1"]),
        (parquet, ""),  # an archive has no member without a name
    ],
)
def test_the_index_of_a_frame_is_no_feature_and_said(
    write: Any, index: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, x=X, y=Y, **{index: np.arange(ROWS)[::-1]})
    for _ in range(2):
        assert read(path).train.features.shape[1:] == (1,)
    assert caplog.text.count(f"{index!r} is the index of a pandas frame and is not trained on") == 1


def test_an_index_with_a_name_is_known_by_what_pandas_wrote_into_the_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": X, "y": Y, "index": X * 2})
    frame.set_index("x").to_parquet(tmp_path / "named.parquet")
    pool = read(str(tmp_path / "named.parquet"))
    # The column called index is a feature; x, the index, is none.
    assert np.corrcoef(np.sort(pool.train.features[:, 0]), np.sort(pool.train.features[:, -1]))[0, 1] > 0
    assert pool.train.features.shape[1:] == (1,)
    frame.to_parquet(tmp_path / "plain.parquet")
    assert read(str(tmp_path / "plain.parquet")).train.features.shape[1:] == (2,)
    frame[frame["x"] > -9].iloc[::-1].to_parquet(tmp_path / "filtered.parquet")
    assert read(str(tmp_path / "filtered.parquet")).train.features.shape[1:] == (2,)


def test_an_index_that_is_asked_for_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = parquet(tmp_path, x=X, y=Y, __index_level_0__=np.arange(ROWS)[::-1])
    assert read(path, features=["x", "__index_level_0__"]).train.features.shape[1:] == (2,)
    assert "pandas" not in caplog.text


def test_copies_of_targets_and_numbers_of_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = npz(tmp_path, x=X, y=Y, answer=Y.astype(float), id=np.arange(ROWS) + 1, text=np.array(["a"] * ROWS))
    read(path, features=["x", "answer", "id"])
    assert "column 'answer': is a copy of the target 'y'" in caplog.text
    assert "column 'id': numbers the rows" in caplog.text
    assert "column 'x'" not in caplog.text


# Large offsets.


@pytest.mark.parametrize(
    ("kind", "offset"),
    [("float64", 1.7e9), ("float64", 1.7e12), ("int64", 1_700_000_000), ("int64", 2**60), ("uint64", 2**63 + 2**40)],
)
def test_a_feature_with_a_large_offset_is_scaled_as_one_without(kind: str, offset: float, tmp_path: Path) -> None:
    small = RNG.integers(0, 6000, ROWS)
    plain = read(npz(tmp_path, t=small, y=Y))
    moved = read(npz(tmp_path, t=np.array([offset], kind) + small.astype(kind), y=Y))
    assert len(np.unique(moved.train.features)) == len(np.unique(plain.train.features)) > 20
    # float64 keeps 1.7e12 to 2e-4, of a deviation of about 1,700.
    for part in ("train", "test"):
        a, b = getattr(plain, part).features, getattr(moved, part).features
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def test_a_target_with_a_large_offset_is_scaled_as_one_without_and_judged_in_its_own_units(tmp_path: Path) -> None:
    plain = read(npz(tmp_path, x=X, y=10 * X), "regression")
    moved = read(npz(tmp_path, x=X, y=1.7e9 + 10 * X), "regression")
    assert torch.allclose(plain.train.targets[0], moved.train.targets[0], atol=1e-5, rtol=0)
    for pool in (plain, moved):
        (task,), target = pool.tasks, pool.test.targets[0]
        assert task.deviation == pytest.approx(float(np.std(10 * X)), rel=0.3)
        wrong_by_one = (target + 1)[:, None]
        # One deviation beside the truth; float32 keeps a target of 3 to 2e-7.
        assert task.scores(wrong_by_one, target).sqrt().tolist() == pytest.approx(
            [task.deviation] * len(target), rel=1e-5
        )


def test_a_test_file_is_scaled_exactly_as_the_training_file(tmp_path: Path) -> None:
    big = 2**60
    test = npz(tmp_path, x=np.array([big - 5, big + 25], np.uint64), y=np.array([0, 1]))
    Path(test).rename(tmp_path / "test.npz")
    path = npz(tmp_path, x=np.array([big, big + 10, big + 20]), y=np.array([0, 1, 0]))
    pool = read(path, test_path=str(tmp_path / "test.npz"))
    deviation = np.sqrt(200 / 3)
    assert pool.train.features[:, 0].tolist() == pytest.approx([-10 / deviation, 0, 10 / deviation])
    assert pool.test.features[:, 0].tolist() == pytest.approx([-15 / deviation, 15 / deviation])


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("write", [npz, parquet])
def test_points_in_time_are_seconds(write: Any, unit: str, tmp_path: Path) -> None:
    days = np.arange(ROWS)[::-1] % 7
    moments = np.datetime64("2024-03-01", "D") + days.astype("m8[D]")
    column = moments.astype(f"M8[{unit}]")
    value = pa.array(column) if write is parquet else column
    assert torch.equal(
        read(write(tmp_path, t=value, y=Y)).train.features, read(npz(tmp_path, t=days, y=Y)).train.features
    )
    unscaled = files(0, 2, path=write(tmp_path, x=X, y=value), targets={"y": "regression"})
    assert unscaled.tasks[0].deviation == pytest.approx(86400 * 2, rel=0.2)


def test_a_missing_point_in_time_is_named(tmp_path: Path) -> None:
    moments = np.array(["2024-03-01"] * ROWS, "M8[s]")
    moments[7] = "NaT"
    with pytest.raises(DataError, match="column 't': the value in row 7 is not a finite number"):
        read(npz(tmp_path, t=moments, y=Y))


def test_the_row_that_is_named_is_that_of_the_file(tmp_path: Path) -> None:
    holes = X.copy()
    holes[23] = np.inf
    with pytest.raises(DataError, match="the value in row 23 is not a finite number"):
        read(npz(tmp_path, x=holes, y=Y))


@pytest.mark.parametrize("value", [0.1, 1.7e9 + 0.1, 2**62, -3])
def test_a_constant_column_becomes_zero(value: float, tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.full(ROWS, value), y=np.full(ROWS, value))
    for kind, part in (("regression", "features"), ("regression", "targets")):
        pool = read(path, kind)
        values = pool.train.features if part == "features" else pool.train.targets[0]
        assert not values.any()
    assert pool.tasks[0].deviation == 1


@pytest.mark.parametrize("place", ["x", "y"])
def test_what_float32_cannot_hold_unscaled_is_refused(place: str, tmp_path: Path) -> None:
    columns = {"x": X, "y": X * 2, place: 1.7e9 + 10 * X}
    with pytest.raises(DataError, match=rf"column '{place}': float32 has steps of 128 .*data.standardise = true"):
        read(npz(tmp_path, **columns), "regression", standardise=False)
    with pytest.raises(DataError, match=rf"column '{place}': float32 has steps of"):
        read(npz(tmp_path, **{**columns, place: 2**60 + np.arange(ROWS) % 7}), "regression", standardise=False)
    read(npz(tmp_path, x=X, y=16_000_000 + Y), "regression", standardise=False)  # whole numbers, and exact
    with pytest.raises(DataError, match="beyond float32"):
        read(npz(tmp_path, x=X * 1e60, y=X), "regression", standardise=False)
    with pytest.raises(DataError, match=r"column 'x': the value in row . is too large"):
        read(npz(tmp_path, x=np.full(ROWS, 1e200), y=X), "regression")


# Columns of no use.

USELESS = {
    "nulls": pa.array([None if k % 3 else "hi" for k in range(ROWS)]),
    "nothing": pa.nulls(ROWS),
    "ragged": pa.array([list(range(k % 4)) for k in range(ROWS)]),
    "struct": pa.array([{"a": k} for k in range(ROWS)]),
    "map": pa.array([[("a", k)] for k in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    "decimal": pa.array([decimal.Decimal(k) for k in range(ROWS)]),
    "time": pa.array([datetime.time(k % 24) for k in range(ROWS)]),
    "binary": pa.array([b"x"] * ROWS),
    "structs": pa.array([[{"a": k}] for k in range(ROWS)]),
}
REASONS = {
    "nulls": "26 values are missing",
    "nothing": "40 values are missing",
    "ragged": "its lists differ in length",
    "struct": "holds a struct, struct<a: int64>; write its fields as columns of their own",
    "map": "holds a map, map<string, int64.*>; write a column for each of its keys",
    "decimal": r"holds decimals, decimal128\(2, 0\); write them as float64",
    "time": r"holds times of the day, time64\[us\]",
    "binary": "holds binary; write it as numbers",
    "structs": "holds a struct",
}


def test_columns_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    assert read(parquet(tmp_path, x=X, y=Y, **USELESS), features=["x"]).train.features.shape == (32, 1)
    extra = {"classes": np.array(["a", "b"]), "one": np.array(3), "object": np.array([{"a": 1}] * ROWS, object)}
    assert read(npz(tmp_path, x=X, y=Y, **extra), features=["x"]).train.features.shape == (32, 1)


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.parametrize("asked", ["features", "targets", "client_column"])
def test_a_column_that_is_asked_for_is_refused_by_its_type(name: str, asked: str, tmp_path: Path) -> None:
    path = parquet(tmp_path, x=X, y=Y, **USELESS)
    options = {"features": ["x"], "targets": {"y": "binary"}}
    options |= {"features": {"features": ["x", name]}, "targets": {"targets": {name: "classification"}}}.get(
        asked, {"client_column": name}
    )
    with pytest.raises(DataError, match=f"column '{name}': {REASONS[name]}"):
        files(0, 2, path=path, **options)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (np.array([{"a": 1}] * ROWS, object), "holds Python objects"),
        (np.ones(ROWS, complex), "holds complex numbers, complex128"),
        (np.ones(ROWS, [("a", int)]), "holds records"),
        (np.ones(3), "columns differ in length: x 40, z 3, y 40; name those to train on in data.features"),
    ],
)
def test_an_array_that_is_asked_for_is_refused_by_its_type(column: np.ndarray, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        read(npz(tmp_path, x=X, y=Y, z=column), features=["x", "z"])
    with pytest.raises(DataError, match=r"data\.features"):
        read(npz(tmp_path, x=X, y=Y, z=column))


def test_categories_and_names_with_dots_are_read(tmp_path: Path) -> None:
    labels = pa.array(["b", "a"] * (ROWS // 2)).dictionary_encode()
    path = parquet(tmp_path, **{"education.num": X, "education": pa.array([{"num": 1}] * ROWS), "y": labels})
    pool = read(path, features=["education.num"])
    assert pool.train.features.shape == (32, 1)
    assert pool.tasks[0].classes == ("a", "b")
    with pytest.raises(DataError, match="column 'education': holds a struct"):
        read(path, features=["education"])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(X), pa.array(X), pa.array(Y)], ["x", "x", "y"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="has several columns 'x'"):
        read(str(tmp_path / "twice.parquet"))
