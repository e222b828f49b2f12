"""Labels as class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmtl.data.columns import Columns
from fedmtl.errors import DataError

_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Labels:
    """Class numbers of training and test examples, int64 of shape [n], and what the data call each class."""

    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]


def read_labels(train: Columns, test: Columns, name: str, allowed: int | None) -> Labels:
    """The labels of a column as numbers from 0, in their order: text by alphabet, whole numbers by size.

    The classes are those that occur, in training or test examples. Whole numbers that are class numbers already, for as
    many classes as are `allowed`, stay as they are, whether all occur or not.

    Parameters
    ----------
    train, test
        The columns.
    name
        Of the column.
    allowed
        How many classes there may be; None for those that occur.

    Raises
    ------
    DataError
        If the column holds neither text nor whole numbers, or more classes than are allowed; or fewer, but not by their
        numbers, so that nobody knows which are missing.
    """
    columns = _text(train.flat(name)), _text(test.flat(name))
    text = all(column.dtype.kind in "OU" for column in columns)
    if not text:
        columns = train.whole(name), test.whole(name)
    found = sorted({value for column in columns for value in np.unique(column).tolist()})
    if allowed is not None and not text and found[0] >= 0 and found[-1] < allowed:
        names = range(allowed) if any(column.dtype.kind != "b" for column in columns) else (False, True)
        return Labels(columns[0].astype(np.int64), columns[1].astype(np.int64), tuple(map(str, names)))
    if allowed is not None and (len(found) > allowed or (not text and len(found) < allowed)):
        raise DataError(
            f"{train.where(name)}: holds {len(found)} {'class' if len(found) == 1 else 'classes'}, {_some(found)}; "
            f"{allowed} are asked for: numbered 0 to {allowed - 1}, or with other names if all of them occur"
        )
    place = {value: number for number, value in enumerate(found)}
    return Labels(_numbered(columns[0], place), _numbered(columns[1], place), tuple(map(str, found)))


def _numbered(column: np.ndarray, place: dict[object, int]) -> np.ndarray:
    values, which = np.unique(column, return_inverse=True)
    return np.array([place[value] for value in values.tolist()], dtype=np.int64)[which]


def _text(column: np.ndarray) -> np.ndarray:
    """The same labels; as text, where NumPy holds text as bytes."""
    return np.char.decode(column, "utf-8", "replace") if column.dtype.kind == "S" else column


def _some(found: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in found[:_SHOWN])
    return shown + (", ..." if len(found) > _SHOWN else "")
