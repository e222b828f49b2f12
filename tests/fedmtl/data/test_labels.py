"""Labels of files: the classes are those that occur, and have the names that the file gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmtl.config import parse_config
from fedmtl.data.build import build_data
from fedmtl.data.files import files
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions import PARTITIONS

ROWS = 40
X = np.random.default_rng(0).normal(size=ROWS)
Y = np.arange(ROWS) % 2


def npz(folder: Path, **columns: Any) -> str:
    path = folder / "table.npz"
    np.savez(path, **columns)
    return str(path)


def read(path: str, kind: str = "binary", **options: Any) -> Pool:
    return files(0, 2, path=path, targets={"y": kind}, **options)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 5], ("0", "5")),
        ([1, 2, 3], ("1", "2", "3")),
        ([-1, 1], ("-1", "1")),
        ([2**40, 7], ("7", str(2**40))),
        (["no", "yes"], ("no", "yes")),
        ([b"no", "schön".encode()], ("no", "schön")),
        ([False, True], ("False", "True")),
    ],
)
def test_labels_are_numbered_from_0_in_their_order(labels: list[Any], classes: tuple[str, ...], tmp_path: Path) -> None:
    column = np.array([labels[k % len(labels)] for k in range(ROWS)])
    pool = read(npz(tmp_path, x=X, y=column), "classification", standardise=False)
    (task,) = pool.tasks
    assert (task.outputs, task.classes) == (len(classes), classes)
    assert sorted(np.unique(pool.train.targets[0])) == list(range(len(classes)))
    named = [classes[k] for k in pool.train.targets[0].tolist()]
    text = [value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist()]
    of_feature = dict(zip(X.astype(np.float32).tolist(), text, strict=True))
    assert named == [of_feature[x] for x in pool.train.features[:, 0].tolist()]


def test_two_classes_of_any_name_are_a_binary_task(tmp_path: Path) -> None:
    pool = read(npz(tmp_path, x=X, y=np.where(Y, 1, -1)))
    assert pool.tasks[0].classes == ("-1", "1")
    assert sorted(np.unique(pool.train.targets[0])) == [0, 1]
    assert read(npz(tmp_path, x=X, y=np.ones(ROWS, bool))).tasks[0].classes == ("False", "True")
    ones = read(npz(tmp_path, x=X, y=np.ones(ROWS, int)))  # class numbers already: the other does not occur
    assert ones.train.targets[0].unique().tolist() == [1]
    with pytest.raises(DataError, match="column 'y': holds 1 class, 7; 2 are asked for"):
        read(npz(tmp_path, x=X, y=np.full(ROWS, 7)))


def test_numbers_of_classes_stay_where_it_is_said_how_many_there_are(tmp_path: Path) -> None:
    pool = read(npz(tmp_path, x=X, y=Y * 5), "classification:10")
    assert pool.tasks[0].outputs == 10
    assert sorted(np.unique(pool.train.targets[0])) == [0, 5]
    assert read(npz(tmp_path, x=X, y=Y * 5), "classification:2").tasks[0].classes == ("0", "5")
    with pytest.raises(DataError, match="column 'y': holds 2 classes, 0, 5; 4 are asked for: numbered 0 to 3, or"):
        read(npz(tmp_path, x=X, y=Y * 5), "classification:4")


def test_a_class_that_only_test_examples_have_counts(tmp_path: Path) -> None:
    test = npz(tmp_path, x=X, y=np.full(ROWS, 9))
    Path(test).rename(tmp_path / "test.npz")
    pool = read(npz(tmp_path, x=X, y=Y * 5), "classification", test_path=str(tmp_path / "test.npz"))
    assert pool.tasks[0].classes == ("0", "5", "9")
    assert pool.test.targets[0].unique().tolist() == [2]
    with pytest.raises(DataError, match=r"classes_per_client = 3: the data have 2 classes only"):
        PARTITIONS["pathological"](pool, 4, 0, classes_per_client=3)


@pytest.mark.parametrize(
    ("partition", "option"), [("pathological", "classes_per_client=3"), ("class", "max_classes=3")]
)
def test_partitions_count_the_classes_that_occur(partition: str, option: str, tmp_path: Path) -> None:
    gap = npz(tmp_path, x=X, y=Y * 5)
    for kind in ("classification", "classification:10"):
        settings = [f"data.path={gap}", "data.source=files", f"data.targets={{y='{kind}'}}", "data.clients=4"]
        settings += [f"data.partition={partition}", f"data.{option}"]
        with pytest.raises(DataError, match="the data have 2 classes only"):
            build_data(parse_config({}, settings))
