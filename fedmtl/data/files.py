"""Local files: NumPy archives and Parquet tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.config_errors import did_you_mean
from fedmtl.data.columns import ColumnFile, Columns, open_columns
from fedmtl.data.federated import Examples
from fedmtl.data.labels import read_labels
from fedmtl.data.layout import Channels, channels_axis, channels_first
from fedmtl.data.pool import Pool
from fedmtl.data.scaling import Scaled, as_they_are, standardised
from fedmtl.errors import ConfigError, DataError
from fedmtl.notices import say_once
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

_KINDS = ("classification", "binary", "regression")
Pair = tuple[np.ndarray, np.ndarray]


def files(
    seed: int,
    clients: int,
    *,
    path: Annotated[str, Param("the .npz or .parquet file with the training examples", path=True)],
    targets: Annotated[
        dict[str, str],
        Param("target columns and their kinds: 'classification', 'classification:10', 'binary' or 'regression'"),
    ],
    features: Annotated[
        Sequence[str],
        Param("feature columns; none for all but the targets, the client column and the index of a pandas frame"),
    ] = (),
    client_column: Annotated[str, Param("column that says whose an example is, for data.partition = 'natural'")] = "",
    test_path: Annotated[str, Param("a file of the same columns with the test examples", path=True)] = "",
    test_fraction: Annotated[
        float, Param("share of the examples that is drawn for testing where there is no test_path", gt=0, lt=1)
    ] = 0.2,
    standardise: Annotated[
        bool, Param("give numeric features and regression targets mean 0 and deviation 1 on the training examples")
    ] = True,
    tokens: Annotated[bool, Param("features are symbols, whole numbers that stay as they are (text models)")] = False,
    channels: Annotated[
        Channels, Param("where a column of images has its channels; 'none' for grey images without that axis")
    ] = "auto",
) -> Pool:
    """Examples from a NumPy archive or a Parquet table on this machine.

    A feature column is an array of shape [n] or [n, ...]; several are put side by side, each flattened. Images become
    [n, channels, height, width]; where their channels are is seen by the shape. Times are numbers of seconds. Labels
    may be text or any whole numbers: classes are numbered from 0 in their order. All is scaled in float64, and a
    regression's metric is in the target's own units. Columns that are not asked for are not read.

    Raises
    ------
    ConfigError
        If the kind of a target is unknown, a target is among the features, or `channels` does not fit.
    DataError
        If a file cannot be read, lacks a column, or a column holds something else than it should.
    """
    file = open_columns(Path(path))
    names = _feature_names(file, features, targets, client_column)
    train = whole = file.read([*names, *targets, *([client_column] if client_column else [])])
    _warn_of_leaks(whole, names, targets)
    if test_path:
        test = open_columns(Path(test_path)).read([*names, *targets])
    else:
        train, test = _split(whole, test_fraction, seed)
    users, natural = np.unique(train.flat(client_column), return_inverse=True) if client_column else ((), None)
    read = [_target(train, test, name, kind, standardise) for name, kind in targets.items()]
    inputs = _symbols(train, test, names) if tokens else _numbers(train, test, names, channels, standardise)
    return Pool(
        tuple(task for task, _ in read),
        Examples(torch.from_numpy(inputs[0]), tuple(torch.from_numpy(pair[0]) for _, pair in read)),
        Examples(torch.from_numpy(inputs[1]), tuple(torch.from_numpy(pair[1]) for _, pair in read)),
        natural=natural,
        users=tuple(map(str, users)),
    )


def _feature_names(
    file: ColumnFile, features: Sequence[str], targets: Mapping[str, str], client_column: str
) -> list[str]:
    """The columns to read features from: those named, or all that are left."""
    if leak := next((name for name in features if name in targets), None):
        raise ConfigError(f"data.features: {leak!r} is a target, too; what is to be predicted is no feature")
    if twice := next((name for name in features if list(features).count(name) > 1), None):
        raise ConfigError(f"data.features: {twice!r} is named twice")
    taken = {*targets, *([client_column] if client_column else [])}
    left = [name for name in file.names if name not in taken]
    names = list(features) or [name for name in left if name not in file.index]
    if not names or not targets:
        raise DataError(f"{file.path}: data.features and data.targets must leave at least one column each")
    if dropped := [name for name in left if not features and name in file.index]:
        say_once(
            f"{file.path}: {', '.join(map(repr, dropped))} is the index of a pandas frame and is not trained on; if it "
            "is a feature, name it in data.features"
        )
    return names


def _warn_of_leaks(columns: Columns, names: Sequence[str], targets: Mapping[str, str]) -> None:
    """Say which features give targets away: copies of them, and the numbers of the rows, which may be sorted."""
    rows = np.arange(len(columns))
    for name in names:
        column = columns.arrays[name]
        if column.ndim != 1 or len(column) < 2:
            continue
        if copied := next((target for target in targets if np.array_equal(columns.arrays[target], column)), None):
            say_once(f"{columns.where(name)}: is a copy of the target {copied!r}; name the features in data.features")
        elif column.dtype.kind in "iuf" and (np.array_equal(column, rows) or np.array_equal(column, rows + 1)):
            say_once(f"{columns.where(name)}: numbers the rows, whose order may give targets away")


def _split(columns: Columns, fraction: float, seed: int) -> tuple[Columns, Columns]:
    order = numpy_generator(seed, "files split").permutation(len(columns))
    tests = int(fraction * len(columns) + 0.5)
    if not 0 < tests < len(columns):
        raise DataError(
            f"{columns.path}: data.test_fraction = {fraction} of {len(columns)} examples leaves a side empty"
        )
    return columns.take(np.sort(order[tests:])), columns.take(np.sort(order[:tests]))


def _symbols(train: Columns, test: Columns, names: Sequence[str]) -> Pair:
    """Features that are symbols, int64."""
    return _alike(train, test, *(_side_by_side([part.symbols(name) for name in names]) for part in (train, test)))


def _numbers(train: Columns, test: Columns, names: Sequence[str], channels: Channels, standardise: bool) -> Pair:
    """Features that are numbers, float32; a single column keeps its shape, with the channels of images first."""
    read = _numeric(train, test, names, standardise)
    if len(names) == 1:
        shape, where = tuple(read[0][0].shape[1:]), train.where(names[0])
        found = channels_axis(shape, channels, where)
        if found == "last" and channels == "auto":
            say_once(f"{where}: images of shape {shape} are turned, for their channels seem to be last (data.channels)")
        read = [[channels_first(part[0], found)] for part in read]
    elif channels != "auto":
        raise ConfigError(f"data.channels = {channels!r}: is for a column of images, not for {len(names)} columns")
    inputs = _alike(train, test, *map(_side_by_side, read))
    if standardise:
        scaled = standardised(*inputs)
    else:
        where = train.where(names[0]) if len(names) == 1 else f"{train.path}, columns {', '.join(map(repr, names))}"
        scaled = as_they_are(*inputs, where)
    return scaled.train, scaled.test


def _numeric(train: Columns, test: Columns, names: Sequence[str], standardise: bool) -> list[list[np.ndarray]]:
    """Training and test columns as numbers; those that are scaled in types that tell them apart."""
    origins = {name: train.origin(name) if standardise else 0 for name in names}
    return [[part.numbers(name, origins[name]) for name in names] for part in (train, test)]


def _side_by_side(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns side by side, each flattened; a single one keeps its shape."""
    if len(columns) == 1 and columns[0].ndim > 1:
        return columns[0]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)


def _alike(train: Columns, test: Columns, inputs: np.ndarray, others: np.ndarray) -> Pair:
    if inputs.shape[1:] != others.shape[1:]:
        raise DataError(
            f"{test.path}: features have shape {others.shape[1:]}, those of {train.path} have {inputs.shape[1:]}"
        )
    return inputs, others


def _target(train: Columns, test: Columns, name: str, kind: str, standardise: bool) -> tuple[Task, Pair]:
    """The task of a target column, and its training and test targets."""
    kind, colon, classes = kind.partition(":")
    if kind not in _KINDS or (colon and (kind != "classification" or not classes.isdecimal())):
        hint = did_you_mean(kind, _KINDS)
        raise ConfigError(
            f"data.targets.{name} = {kind + colon + classes!r} is unknown{hint}; known: {', '.join(_KINDS)}, and "
            "'classification:10' for so many classes"
        )
    if kind == "regression":
        scaled = _regression(train, test, name, standardise)
        return Task(name, "regression", deviation=float(scaled.deviation)), (scaled.train, scaled.test)
    labels = read_labels(train, test, name, 2 if kind == "binary" else int(classes) if classes else None)
    if kind == "binary":
        pair = labels.train.astype(np.float32), labels.test.astype(np.float32)
        return Task(name, "binary", classes=labels.classes), pair
    outputs = max(int(classes or len(labels.classes)), 2)
    return Task(name, "classification", outputs=outputs, classes=labels.classes), (labels.train, labels.test)


def _regression(train: Columns, test: Columns, name: str, standardise: bool) -> Scaled:
    train.flat(name), test.flat(name)
    (numbers,), (others,) = _numeric(train, test, [name], standardise)
    return standardised(numbers, others) if standardise else as_they_are(numbers, others, train.where(name))
