"""Columns of a file, read once and checked where they are used."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmtl.config_errors import did_you_mean
from fedmtl.errors import DataError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Columns:
    """Named arrays of one length, and the file they came from (for the messages)."""

    path: Path
    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: np.ndarray) -> Columns:
        """These rows of every column, in this order."""
        return Columns(self.path, {name: array[rows] for name, array in self.arrays.items()})

    def column(self, name: str) -> np.ndarray:
        """A column, or a DataError that names the nearest one."""
        if name not in self.arrays:
            hint = did_you_mean(name, self.arrays)
            raise DataError(f"{self.path} has no column {name!r}{hint}; it has: {', '.join(self.arrays)}")
        return self.arrays[name]

    def flat(self, name: str) -> np.ndarray:
        """A column of single values, shape [n]."""
        array = self.column(name)
        if array.ndim != 1:
            raise DataError(f"{self.path}, column {name!r}: needs one value per example, has shape {array.shape[1:]}")
        return array

    def numbers(self, name: str) -> np.ndarray:
        """A column as finite float32 numbers, shape [n, ...]."""
        array = self.column(name)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{self.path}, column {name!r}: needs numbers, holds {_content(array)}")
        numbers = array.astype(np.float32)
        if not np.isfinite(numbers).all():
            row = int(np.argwhere(~np.isfinite(numbers))[0][0])
            raise DataError(f"{self.path}, column {name!r}: the value in row {row} is not a finite number")
        return numbers

    def symbols(self, name: str) -> np.ndarray:
        """A column as whole numbers from 0, int64, shape [n, ...]."""
        array = self.column(name)
        if array.dtype.kind not in "biu":
            raise DataError(f"{self.path}, column {name!r}: needs whole numbers, holds {_content(array)}")
        if len(array) and array.min() < 0:
            raise DataError(f"{self.path}, column {name!r}: holds {array.min()}; symbols are numbered from 0")
        return array.astype(np.int64)

    def features(self, names: Sequence[str], tokens: bool) -> np.ndarray:
        """Feature columns side by side, float32 (int64 for tokens); a single one keeps its shape."""
        columns = [self.symbols(name) if tokens else self.numbers(name) for name in names]
        if len(columns) == 1 and columns[0].ndim > 1:
            return columns[0]
        return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)


def read_columns(path: Path) -> Columns:
    """The columns of a ``.npz`` or ``.parquet`` file.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another kind, empty, or its columns differ in length.
    """
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(
            f"{path}: files are read from .npz or .parquet, not from {path.suffix or 'a file without suffix'}"
        )
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    arrays = readers[path.suffix](path)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not lengths or not any(lengths.values()):
        raise DataError(f"{path} holds no examples")
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: columns differ in length: {', '.join(f'{n} {size}' for n, size in lengths.items())}")
    return Columns(path, arrays)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz archive: {error}") from None


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None
    return {name: _dense(path, name, table.column(name).combine_chunks()) for name in table.column_names}


def _dense(path: Path, name: str, column: pyarrow.Array) -> np.ndarray:
    """A column as one array; lists (of lists) become further axes."""
    import pyarrow

    shape = [len(column)]
    nested = (pyarrow.ListType, pyarrow.LargeListType, pyarrow.FixedSizeListType)
    while not column.null_count and isinstance(column.type, nested):
        lengths = column.value_lengths().unique()
        if len(lengths) > 1:
            raise DataError(f"{path}, column {name!r}: its lists differ in length")
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        column = column.flatten()
    if column.null_count:
        raise DataError(f"{path}, column {name!r}: {column.null_count} values are missing; fill or drop these rows")
    return np.asarray(column.to_numpy(zero_copy_only=False).reshape(shape))


def _content(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "OUS" else str(array.dtype)
