"""Local files: NumPy archives and Parquet tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.config_errors import did_you_mean
from fedmtl.data.columns import Columns, read_columns
from fedmtl.data.federated import Examples
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError, DataError
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

_KINDS = ("classification", "binary", "regression")
Pair = tuple[np.ndarray, np.ndarray]


def files(
    seed: int,
    clients: int,
    *,
    path: Annotated[str, Param("the .npz or .parquet file with the training examples")],
    targets: Annotated[
        dict[str, str],
        Param("target columns and their kinds: 'classification', 'classification:10', 'binary' or 'regression'"),
    ],
    features: Annotated[
        Sequence[str], Param("feature columns; none for all columns that are neither target nor client column")
    ] = (),
    client_column: Annotated[str, Param("column that says whose an example is, for data.partition = 'natural'")] = "",
    test_path: Annotated[str, Param("a file of the same columns with the test examples")] = "",
    test_fraction: Annotated[
        float, Param("share of the examples that is drawn for testing where there is no test_path", gt=0, lt=1)
    ] = 0.2,
    standardise: Annotated[
        bool, Param("give numeric features and regression targets mean 0 and deviation 1 on the training examples")
    ] = True,
    tokens: Annotated[bool, Param("features are symbols, whole numbers that stay as they are (text models)")] = False,
) -> Pool:
    """Examples from a NumPy archive or a Parquet table on this machine.

    A feature column is an array of shape [n] or [n, ...]; several are put side by side, each flattened. Labels may be
    text: classes are then numbered in alphabetical order.

    Raises
    ------
    ConfigError
        If the kind of a target is unknown, or a target is among the features.
    DataError
        If a file cannot be read, lacks a column, or a column holds something else than it should.
    """
    train = read_columns(Path(path))
    names = _feature_names(train, features, targets, client_column)
    train, test = (train, read_columns(Path(test_path))) if test_path else _split(train, test_fraction, seed)
    users, natural = np.unique(train.flat(client_column), return_inverse=True) if client_column else ((), None)
    read = [_target(train, test, name, kind, standardise) for name, kind in targets.items()]
    inputs = train.features(names, tokens), test.features(names, tokens)
    if inputs[0].shape[1:] != inputs[1].shape[1:]:
        raise DataError(
            f"{test_path}: features have shape {inputs[1].shape[1:]}, those of {path} have {inputs[0].shape[1:]}"
        )
    inputs = _standardised(*inputs) if standardise and not tokens else inputs
    return Pool(
        tuple(task for task, _ in read),
        Examples(torch.from_numpy(inputs[0]), tuple(torch.from_numpy(pair[0]) for _, pair in read)),
        Examples(torch.from_numpy(inputs[1]), tuple(torch.from_numpy(pair[1]) for _, pair in read)),
        natural=natural,
        users=tuple(map(str, users)),
    )


def _feature_names(
    train: Columns, features: Sequence[str], targets: Mapping[str, str], client_column: str
) -> list[str]:
    """The columns to read features from: those named, or all that are left."""
    if leak := next((name for name in features if name in targets), None):
        raise ConfigError(f"data.features: {leak!r} is a target, too; what is to be predicted is no feature")
    names = list(features) or [name for name in train.arrays if name not in targets and name != client_column]
    if not names or not targets:
        raise DataError(f"{train.path}: data.features and data.targets must leave at least one column each")
    return names


def _split(columns: Columns, fraction: float, seed: int) -> tuple[Columns, Columns]:
    order = numpy_generator(seed, "files split").permutation(len(columns))
    tests = int(fraction * len(columns) + 0.5)
    if not 0 < tests < len(columns):
        raise DataError(
            f"{columns.path}: data.test_fraction = {fraction} of {len(columns)} examples leaves a side empty"
        )
    return columns.take(np.sort(order[tests:])), columns.take(np.sort(order[:tests]))


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
        train.flat(name), test.flat(name)
        numbers = train.numbers(name), test.numbers(name)
        return Task(name, "regression"), _standardised(*numbers) if standardise else numbers
    labels = _labels(train, test, name)
    found = int(max(labels[0].max(), labels[1].max())) + 1
    allowed = 2 if kind == "binary" else int(classes or found)
    if found > allowed:
        raise DataError(f"{train.path}, column {name!r}: labels must lie in 0..{allowed - 1}, found {found - 1}")
    if kind == "binary":
        return Task(name, "binary"), (labels[0].astype(np.float32), labels[1].astype(np.float32))
    return Task(name, "classification", outputs=max(allowed, 2)), labels


def _labels(train: Columns, test: Columns, name: str) -> Pair:
    """Class numbers from 0, int64: whole numbers as they are, text by alphabet."""
    columns = train.flat(name), test.flat(name)
    if all(column.dtype.kind in "OUS" for column in columns):
        numbers = np.unique(np.concatenate(columns), return_inverse=True)[1].astype(np.int64)
        return numbers[: len(train)], numbers[len(train) :]
    return train.symbols(name), test.symbols(name)


def _standardised(train: np.ndarray, test: np.ndarray) -> Pair:
    """Both with the training mean and deviation: of each column of a table, of all pixels of images together."""
    axis = 0 if train.ndim <= 2 else None
    mean = train.mean(axis=axis, dtype=np.float64)
    deviation = train.std(axis=axis, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return ((train - mean) / deviation).astype(np.float32), ((test - mean) / deviation).astype(np.float32)
