"""Which types of columns can be used, and what to do about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmtl.errors import DataError

if TYPE_CHECKING:
    import pyarrow


def refusal_of_type(kind: pyarrow.DataType) -> str:
    """Why a column of this Arrow type cannot be used, and the remedy; empty if it can."""
    from pyarrow import types

    while (nested := types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)) or (
        types.is_dictionary(kind)
    ):
        kind = kind.value_type
        if nested and types.is_temporal(kind):
            return f"lists of {kind}; write numbers of seconds"
    if types.is_struct(kind):
        return f"a struct, {kind}; write its fields as columns of their own"
    if types.is_map(kind):
        return f"a map, {kind}; write a column for each of its keys"
    if types.is_decimal(kind):
        return f"decimals, {kind}; write them as float64"
    if types.is_time(kind):
        return f"times of the day, {kind}; write numbers of seconds"
    usable = (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string)
    if types.is_temporal(kind) or types.is_null(kind) or any(test(kind) for test in usable):
        return ""
    return f"{kind}; write it as numbers, truth values or text"


def refusal_of_array(array: object) -> str:
    """Why what lies in a NumPy archive cannot be used, and the remedy; empty if it can."""
    if not isinstance(array, np.ndarray):
        return "no array; save it as one"
    if array.dtype.kind == "c":
        return f"complex numbers, {array.dtype}; save real and imaginary parts side by side"
    if array.dtype.kind == "V":
        return f"records, {array.dtype}; save each of their fields as an array of its own"
    return "" if array.dtype.kind in "biufSUMm" else f"{array.dtype}; save it as numbers, truth values or text"


def dense(where: str, column: pyarrow.Array) -> np.ndarray:
    """An Arrow column as one array; lists (of lists) become further axes.

    Raises
    ------
    DataError
        If values are missing, or lists differ in length; `where` names file and column.
    """
    import pyarrow

    shape = [len(column)]
    nested = (pyarrow.ListType, pyarrow.LargeListType, pyarrow.FixedSizeListType)
    while not column.null_count and isinstance(column.type, nested):
        lengths = column.value_lengths().unique()
        if len(lengths) > 1:
            raise DataError(
                f"{where}: its lists differ in length; cut or fill them, or name in data.features what to read"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        column = column.flatten()
    if column.null_count:
        raise DataError(
            f"{where}: {column.null_count} values are missing; fill or drop these rows, or name the columns to read in "
            "data.features"
        )
    return np.asarray(column.to_numpy(zero_copy_only=False).reshape(shape))


def as_numbers(array: np.ndarray) -> np.ndarray | None:
    """The numbers of an array, in a type of numbers; times as seconds, float64; None if it holds none.

    Points in time are seconds since 1970, spans are seconds; one that is missing is not a number.
    """
    if array.dtype.kind in "iuf":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "Mm":
        return None
    if np.datetime_data(array.dtype)[0] in ("Y", "M"):  # no number of seconds
        if array.dtype.kind == "m":
            return None
        array = array.astype("M8[D]")
    unit, count = np.datetime_data(array.dtype)
    seconds = array.astype(np.int64) * float(np.ones((), f"m8[{count}{unit}]") / np.timedelta64(1, "s"))
    return np.where(np.isnat(array), np.nan, seconds)


def content(array: np.ndarray) -> str:
    """What an array holds, in a word for messages."""
    return "text" if array.dtype.kind in "OUS" else str(array.dtype)
