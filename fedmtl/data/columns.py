"""Columns of a file: those that are asked for are read, once, and checked where they are used."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmtl.config_errors import did_you_mean
from fedmtl.data.types import as_numbers, content, dense, refusal_of_array, refusal_of_type
from fedmtl.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_LARGEST_WHOLE = 2**53
"""Up to here every whole number is a float64."""
_LARGEST = 1e100
_INDEX_NAME = re.compile(r"|__index_level_\d+__|Unnamed: \d+(\.\d+)*")
"""What pandas calls an index without a name in Parquet, and a column of a CSV without one, which others leave empty."""


@dataclass(frozen=True)
class Columns:
    """Named arrays of one length, and the file they came from (for the messages).

    Attributes
    ----------
    path
        The file.
    arrays
        The columns, shape [n, ...].
    rows
        Which rows of the file these are, shape [n]; None for all.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: np.ndarray) -> Columns:
        """These rows of every column, in this order."""
        return replace(self, arrays={name: array[rows] for name, array in self.arrays.items()}, rows=rows)

    def where(self, name: str) -> str:
        """File and column, for a message."""
        return f"{self.path}, column {name!r}"

    def flat(self, name: str) -> np.ndarray:
        """A column of single values, shape [n]."""
        array = self.arrays[name]
        if array.ndim != 1:
            raise DataError(f"{self.where(name)}: needs one value per example, has shape {array.shape[1:]}")
        return array

    def origin(self, name: str) -> int:
        """What is to be taken off a column before it is a float64: 0, unless float64 cannot hold its whole numbers."""
        array = self.arrays[name]
        if array.dtype.kind not in "iu" or not array.size:
            return 0
        low, high = int(array.min()), int(array.max())
        return low if max(-low, high) > _LARGEST_WHOLE else 0

    def numbers(self, name: str, origin: int = 0) -> np.ndarray:
        """A column as finite numbers of its own type, shape [n, ...], less its `origin`; times are float64 seconds."""
        array = as_numbers(self.arrays[name])
        if array is None:
            raise DataError(f"{self.where(name)}: needs numbers, holds {content(self.arrays[name])}")
        if origin:
            # Python's whole numbers have no end, and no two types of NumPy's hold all differences.
            return np.asarray((array.astype(object) - origin).astype(np.float64))
        if array.dtype.kind == "f":
            bad = ~(np.abs(array) <= np.float64(_LARGEST))
            if bad.any():
                row, value = int(np.argwhere(bad)[0][0]), array[bad][0]
                fault = "is too large" if np.isfinite(value) else "is not a finite number"
                row = row if self.rows is None else int(self.rows[row])
                raise DataError(f"{self.where(name)}: the value in row {row} {fault}")
        return array

    def whole(self, name: str) -> np.ndarray:
        """A column as whole numbers or truth values of its own type, shape [n, ...]."""
        array = self.arrays[name]
        if array.dtype.kind not in "biu":
            raise DataError(f"{self.where(name)}: needs whole numbers, holds {content(array)}")
        return array

    def symbols(self, name: str) -> np.ndarray:
        """A column as whole numbers from 0, int64, shape [n, ...]."""
        array = self.whole(name)
        if len(array) and array.min() < 0:
            raise DataError(f"{self.where(name)}: holds {array.min()}; symbols are numbered from 0")
        if len(array) and array.max() > np.iinfo(np.int64).max:
            raise DataError(f"{self.where(name)}: holds {array.max()}, which is no symbol")
        return array.astype(np.int64)


@dataclass(frozen=True)
class ColumnFile:
    """A file of columns, of which none is read yet.

    Attributes
    ----------
    path
        The file.
    names
        Its columns.
    index
        Those that are no column of a table but the index of a pandas frame.
    """

    path: Path
    names: Sequence[str]
    index: Sequence[str]
    _read: Callable[[Sequence[str]], dict[str, np.ndarray]]

    def read(self, names: Sequence[str]) -> Columns:
        """These columns, and no others.

        Raises
        ------
        DataError
            If there is no such column, one cannot be used, they differ in length, or there are no examples.
        """
        names = list(dict.fromkeys(names))
        for name in names:
            if name not in self.names:
                hint = did_you_mean(name, self.names)
                raise DataError(f"{self.path} has no column {name!r}{hint}; it has: {', '.join(self.names)}")
            if list(self.names).count(name) > 1:
                raise DataError(f"{self.path} has several columns {name!r}; give each a name of its own")
        arrays = self._read(names)
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if not any(lengths.values()):
            raise DataError(f"{self.path} holds no examples")
        if len(set(lengths.values())) > 1:
            each = ", ".join(f"{name} {size}" for name, size in lengths.items())
            raise DataError(f"{self.path}: columns differ in length: {each}; name those to train on in data.features")
        return Columns(self.path, arrays)


def open_columns(path: Path) -> ColumnFile:
    """The columns of a ``.npz`` or ``.parquet`` file.

    Raises
    ------
    DataError
        If the file is missing, damaged or of another kind.
    """
    openers = {".npz": _open_npz, ".parquet": _open_parquet}
    if path.suffix not in openers:
        raise DataError(
            f"{path}: files are read from .npz or .parquet, not from {path.suffix or 'a file without suffix'}"
        )
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    return openers[path.suffix](path)


def _open_npz(path: Path) -> ColumnFile:
    @contextmanager
    def archive() -> Iterator[Mapping[str, np.ndarray]]:
        try:
            with np.load(path, allow_pickle=False) as opened:
                yield opened
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} is not a readable .npz archive: {error}") from None

    def read(names: Sequence[str]) -> dict[str, np.ndarray]:
        with archive() as opened:
            return {name: _usable(path, name, opened) for name in names}

    with archive() as opened:
        names = list(opened)
    return ColumnFile(path, names, _index_columns(names), read)


def _usable(path: Path, name: str, archive: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(_refused(path, name, "Python objects; save it as numbers, truth values or text")) from None
    if refusal := refusal_of_array(array):
        raise DataError(_refused(path, name, refusal))
    return array


def _open_parquet(path: Path) -> ColumnFile:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
        schema = file.schema_arrow
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None

    def read(names: Sequence[str]) -> dict[str, np.ndarray]:
        for name in names:
            if refusal := refusal_of_type(schema.field(name).type):
                raise DataError(_refused(path, name, refusal))
        try:
            # Each name also asks for those that begin with it and a dot.
            table = file.read(columns=list(names))
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} is not a readable Parquet file: {error}") from None
        return {name: dense(f"{path}, column {name!r}", table.column(name).combine_chunks()) for name in names}

    return ColumnFile(path, schema.names, _index_columns(schema.names, schema), read)


def _refused(path: Path, name: str, refusal: str) -> str:
    return (
        f"{path}, column {name!r}: holds {refusal}; columns that data.features, data.targets and data.client_column do "
        "not name are not read"
    )


def _index_columns(names: Sequence[str], schema: pyarrow.Schema | None = None) -> list[str]:
    """Those that are a pandas index: by what pandas wrote into the schema, or by a name that only pandas gives."""
    pandas = (schema.pandas_metadata or {}) if schema is not None else {}
    said = {name for name in pandas.get("index_columns", []) if isinstance(name, str)}
    return [name for name in names if name in said or _INDEX_NAME.fullmatch(name)]
