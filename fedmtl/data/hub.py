"""Hugging Face data sets with a known schema, through Flower Datasets or from disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.config_errors import did_you_mean
from fedmtl.data.federated import Examples
from fedmtl.data.hub_schemas import SCHEMAS, Images, Name, Schema, read_column
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError, DataError
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

TEST_FRACTION = 0.2


def hub(
    seed: int,
    clients: int,
    *,
    dataset: Annotated[Name, Param("which data set")] = "mnist",
    path: Annotated[
        str, Param("folder that datasets.save_to_disk wrote; empty to download from the Hub", path=True)
    ] = "",
    max_examples: Annotated[int, Param("training examples to keep, drawn at random; 0 for all", ge=0)] = 0,
    image_size: Annotated[
        int, Param("height and width that images are scaled to; 0 for the data set's usual ones", ge=0)
    ] = 0,
) -> Pool:
    """A public data set from the Hugging Face Hub, or a copy of it on this machine.

    Images are float32 in [-1, 1] of shape [n, channels, height, width]; text is int64 symbols; tables are standardised
    numbers and one-hot categories. Where there is no test split, one fifth of the training split is drawn for testing,
    or for temporal data the last fifth of every user's examples is taken.

    Raises
    ------
    ConfigError
        If a size is set for what is no image.
    DataError
        If the data cannot be read, or lack a column.
    """
    schema = SCHEMAS[dataset]
    if image_size and not isinstance(schema, Images):
        raise ConfigError(f"data.image_size = {image_size}: {dataset!r} holds no images; leave it out")
    train, test, users, where = _read(seed, schema, path, max_examples)
    return Pool(_named(schema, train), *schema.encode(train, test, image_size, where), **users)


def hub_deferred(
    seed: int, clients: int, *, dataset: Name, path: str, max_examples: int, image_size: int
) -> Pool | None:
    """The pool of `hub` without its pictures, which are read when asked for; None if the data are not pictures.

    Raises
    ------
    DataError
        As `hub` does; what is wrong with a picture shows when it is read.
    """
    schema = SCHEMAS[dataset]
    if not isinstance(schema, Images):
        return None
    train, test, users, where = _read(seed, schema, path, max_examples)
    known, tests = (Examples(torch.empty(len(split), 0), schema.targets(split, where)) for split in (train, test))

    def pixels(rows: np.ndarray) -> torch.Tensor:
        return schema.pixels(train.select(rows), image_size, where)

    return Pool(_named(schema, train), known, tests, features_of=pixels, **users)


def _named(schema: Schema, train: Dataset) -> tuple[Task, ...]:
    """The tasks, with the names of their classes where the data have them."""
    names = {task.name: getattr(train.features.get(task.name), "names", None) for task in schema.tasks}
    return tuple(replace(task, classes=tuple(names[task.name] or task.classes)) for task in schema.tasks)


def _read(seed: int, schema: Schema, path: str, max_examples: int) -> tuple[Dataset, Dataset, dict[str, Any], str]:
    """Both splits, as they are on disk; whose the training examples are, for a pool; the data's name in messages."""
    where = path or schema.repository
    train, test = _from_disk(Path(path), schema) if path else _from_hub(schema)
    for split in (train, test):
        if split is not None:
            _check_columns(split, schema, where)
    if test is None:
        train, test = _split(train, schema, where, seed)
    if 0 < max_examples < len(train):
        kept = numpy_generator(seed, "hub sample").permutation(len(train))[:max_examples]
        train = train.select(np.sort(kept))
    if not schema.user:
        return train, test, {}, where
    users, natural = np.unique(read_column(train, schema.user, where), return_inverse=True)
    return train, test, {"natural": natural, "users": tuple(map(str, users.tolist()))}, where


def _from_hub(schema: Schema) -> tuple[Dataset, Dataset | None]:
    from flwr_datasets import FederatedDataset

    federated = FederatedDataset(dataset=schema.repository, partitioners={}, shuffle=False)
    try:
        train = federated.load_split("train")
        return train, federated.load_split(schema.test_split) if schema.test_split else None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{schema.repository} cannot be loaded from the Hugging Face Hub: {error}\n"
            "Where there is access, load it with datasets.load_dataset and write it with save_to_disk; then set "
            "data.path to that folder"
        ) from None


def _from_disk(folder: Path, schema: Schema) -> tuple[Dataset, Dataset | None]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"data.path = {str(folder)!r} is no folder that save_to_disk wrote: {error}") from None
    if isinstance(loaded, datasets.Dataset):
        return loaded, None
    if "train" not in loaded:
        raise DataError(f"{folder} has no split 'train'; it has: {', '.join(loaded)}")
    return loaded["train"], loaded.get("test")


def _check_columns(split: Dataset, schema: Schema, where: str) -> None:
    known = list(split.column_names)
    for name in (*schema.columns, schema.user):
        if name and name not in known:
            raise DataError(f"{where} has no column {name!r}{did_you_mean(name, known)}; it has: {', '.join(known)}")
    if not len(split):
        raise DataError(f"{where} has a split without examples")


def _split(whole: Dataset, schema: Schema, where: str, seed: int) -> tuple[Dataset, Dataset]:
    """Training and test examples of a data set without a test split."""
    if schema.temporal:
        user = np.unique(read_column(whole, schema.user, where), return_inverse=True)[1]
        order, sizes = np.argsort(user, kind="stable"), np.bincount(user)
        rank = np.empty(len(user), dtype=np.int64)
        rank[order] = np.arange(len(user)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        tests = rank >= sizes[user] - (TEST_FRACTION * sizes).astype(np.int64)[user]
    else:
        tests = np.zeros(len(whole), dtype=bool)
        tests[numpy_generator(seed, "hub split").permutation(len(whole))[: int(TEST_FRACTION * len(whole))]] = True
    if not tests.any():
        raise DataError(f"{where} is too small: one fifth of its {len(whole)} examples for testing leaves none")
    return whole.select(np.flatnonzero(~tests)), whole.select(np.flatnonzero(tests))
