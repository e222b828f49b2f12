"""What the public data sets look like on the Hugging Face Hub, and how their columns become tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from fedmtl.data.federated import Examples
from fedmtl.data.scaling import standardised
from fedmtl.errors import DataError
from fedmtl.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

# The characters of LEAF's Shakespeare corpus, in its order (80).
CHARACTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
TEXT_LENGTH = 80
_CELEBA_ATTRIBUTES = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young
"""
_ROWS_AT_A_TIME = 65536


@dataclass(frozen=True)
class Schema(ABC):
    """Columns of a data set.

    Attributes
    ----------
    repository
        Its name on the Hub.
    tasks
        What can be learned from it.
    user
        The column that says whose an example is; empty if there is none.
    test_split
        The split for testing; empty if there is none.
    temporal
        Whether a user's examples are in the order of time, and overlap with their neighbours.
    """

    repository: str
    tasks: tuple[Task, ...]
    user: str = ""
    test_split: str = ""
    temporal: bool = False

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, without the user's."""

    @abstractmethod
    def encode(self, train: Dataset, test: Dataset, image_size: int, where: str) -> tuple[Examples, Examples]:
        """Both splits as tensors; `where` names the data in messages."""


@dataclass(frozen=True)
class Images(Schema):
    """Pictures with a column of the same name for each task."""

    column: str = "image"
    mode: str = "L"
    size: int = 28

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with the picture and the targets."""
        return (self.column, *(task.name for task in self.tasks))

    def encode(self, train: Dataset, test: Dataset, image_size: int, where: str) -> tuple[Examples, Examples]:
        """Pixels in [-1, 1], float32 of shape [n, channels, size, size], and the targets."""
        train_part, test_part = (
            Examples(self.pixels(split, image_size, where), self.targets(split, where)) for split in (train, test)
        )
        return train_part, test_part

    def pixels(self, split: Dataset, image_size: int, where: str) -> Tensor:
        """The pictures of a split, without its targets."""
        return read_images(split, self.column, self.mode, image_size or self.size, where)

    def targets(self, split: Dataset, where: str) -> tuple[Tensor, ...]:
        """The targets alone, which cost little."""
        return tuple(read_target(split, task, task.name, where) for task in self.tasks)


@dataclass(frozen=True)
class Text(Schema):
    """Eighty characters, and the next one to predict."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Text and next character."""
        return ("x", "y")

    def encode(self, train: Dataset, test: Dataset, image_size: int, where: str) -> tuple[Examples, Examples]:
        """Symbols, int64 of shape [n, 80], and the next symbol."""
        return self._split(train, where), self._split(test, where)

    def _split(self, split: Dataset, where: str) -> Examples:
        symbols = read_text(split, "x", TEXT_LENGTH, where)
        return Examples(symbols, (read_text(split, "y", 1, where)[:, 0].contiguous(),))


@dataclass(frozen=True)
class Table(Schema):
    """Numbers and categories, with one binary target."""

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    positive: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with the features and the target."""
        return (*self.numbers, *self.categories, self.tasks[0].name)

    def encode(self, train: Dataset, test: Dataset, image_size: int, where: str) -> tuple[Examples, Examples]:
        """Numbers standardised by the training split, then one-hot categories: float32 of shape [n, width]."""
        both = [[read_numbers(split, name, where) for name in self.numbers] for split in (train, test)]
        scaled = standardised(*(np.stack(columns, axis=1) for columns in both))
        blocks = [[scaled.train], [scaled.test]]
        for name in self.categories:
            values = [read_column(split, name, where).astype(str) for split in (train, test)]
            known = np.unique(np.concatenate(values))
            for block, column in zip(blocks, values, strict=True):
                block.append(column[:, None] == known)
        target = self.tasks[0].name
        labels = [read_column(split, target, where).astype(str) == self.positive for split in (train, test)]
        features = [torch.from_numpy(np.concatenate(block, axis=1).astype(np.float32)) for block in blocks]
        outputs = [torch.from_numpy(label.astype(np.float32)) for label in labels]
        return Examples(features[0], (outputs[0],)), Examples(features[1], (outputs[1],))


def read_column(split: Dataset, name: str, where: str) -> np.ndarray:
    """A column of plain values."""
    values = np.asarray(split.with_format("numpy")[name][:])
    _refuse_missing(values, name, where)
    return values


def _refuse_missing(values: np.ndarray, name: str, where: str) -> None:
    if values.dtype == object and any(value is None for value in values):
        raise DataError(f"{where}, column {name!r}: a value is missing")


def read_numbers(split: Dataset, name: str, where: str) -> np.ndarray:
    """A column of finite numbers, float64."""
    values = np.asarray(split[name][:])  # in a format of arrays, `datasets` makes float32 of every number
    _refuse_missing(values, name, where)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}, column {name!r}: needs numbers, holds {split.features[name]}")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise DataError(f"{where}, column {name!r}: the value in row {row} is not a finite number")
    return numbers


def read_target(split: Dataset, task: Task, column: str, where: str) -> Tensor:
    """A target column: int64 class numbers, or float32."""
    values = read_column(split, column, where)
    if values.dtype.kind not in "biu":
        raise DataError(f"{where}, column {column!r}: needs whole numbers or truth values, holds {values.dtype}")
    return torch.from_numpy(values.astype(np.int64 if task.kind == "classification" else np.float32))


def read_images(split: Dataset, column: str, mode: str, size: int, where: str) -> Tensor:
    """Pictures as float32 in [-1, 1], shape [n, channels, size, size]."""
    import datasets
    from PIL import Image, UnidentifiedImageError

    if not isinstance(split.features[column], datasets.Image):
        raise DataError(f"{where}, column {column!r}: needs pictures, holds {split.features[column]}")
    pixels = np.empty((len(split), {"L": 1, "RGB": 3}[mode], size, size), dtype=np.float32)
    row = 0
    try:
        for row, picture in enumerate(split[column]):
            picture = picture.convert(mode)
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            values = np.asarray(picture, dtype=np.float32)
            pixels[row] = values if mode == "L" else values.transpose(2, 0, 1)
    except (UnidentifiedImageError, AttributeError, OSError) as error:
        raise DataError(f"{where}, column {column!r}: a picture near row {row} cannot be read: {error}") from None
    pixels *= 2.0 / 255.0
    pixels -= 1.0
    return torch.from_numpy(pixels)


def read_text(split: Dataset, column: str, length: int, where: str) -> Tensor:
    """Texts of that length as symbols, int64 of shape [n, length]."""
    table = np.full(0x110000, -1, dtype=np.int64)
    table[[ord(character) for character in CHARACTERS]] = np.arange(len(CHARACTERS))
    symbols = np.empty((len(split), length), dtype=np.int64)
    for start in range(0, len(split), _ROWS_AT_A_TIME):
        texts = split[start : start + _ROWS_AT_A_TIME][column]
        for row, text in enumerate(texts, start):
            if not isinstance(text, str) or len(text) != length:
                raise DataError(f"{where}, column {column!r}: row {row} needs a text of {length} characters: {text!r}")
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32).reshape(-1, length)
        symbols[start : start + len(texts)] = table[codes]
    if (symbols < 0).any():
        row = int(np.argwhere(symbols < 0)[0][0])
        raise DataError(f"{where}, column {column!r}: row {row} holds a character that is not one of the corpus' 80")
    return torch.from_numpy(symbols)


def _classes(name: str, outputs: int, classes: tuple[str, ...] = ()) -> Task:
    return Task(name, "classification", outputs=outputs, classes=classes)


Name = Literal["mnist", "fashion-mnist", "cifar10", "cifar100", "femnist", "celeba", "shakespeare", "adult"]
SCHEMAS: Mapping[Name, Schema] = {
    "mnist": Images("ylecun/mnist", (_classes("label", 10),), test_split="test"),
    "fashion-mnist": Images("zalando-datasets/fashion_mnist", (_classes("label", 10),), test_split="test"),
    "cifar10": Images(
        "uoft-cs/cifar10", (_classes("label", 10),), test_split="test", column="img", mode="RGB", size=32
    ),
    "cifar100": Images(
        "uoft-cs/cifar100",
        (_classes("fine_label", 100), _classes("coarse_label", 20)),
        test_split="test",
        column="img",
        mode="RGB",
        size=32,
    ),
    "femnist": Images("flwrlabs/femnist", (_classes("character", 62),), user="writer_id"),
    "celeba": Images(
        "flwrlabs/celeba",
        tuple(Task(name, "binary") for name in _CELEBA_ATTRIBUTES.split()),
        user="celeb_id",
        test_split="test",
        mode="RGB",
        size=64,
    ),
    "shakespeare": Text(
        "flwrlabs/shakespeare",
        (_classes("next", len(CHARACTERS), tuple(map(repr, CHARACTERS))),),
        user="character_id",
        temporal=True,
    ),
    "adult": Table(
        "scikit-learn/adult-census-income",
        (Task("income", "binary", classes=("<=50K", ">50K")),),
        numbers=("age", "education.num", "capital.gain", "capital.loss", "hours.per.week"),
        categories=("workclass", "marital.status", "occupation", "relationship", "race", "sex", "native.country"),
        positive=">50K",
    ),
}
