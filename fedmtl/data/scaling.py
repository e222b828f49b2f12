"""Numbers for a float32 model: scaled in float64, and cast last.

A float32 has 24 bits. Of a column of seconds since 1970 it keeps steps of 128 s: cast before its mean is taken off,
such a column is a constant, as a feature as well as a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmtl.errors import DataError

_LOST = 0.1


@dataclass(frozen=True, eq=False)
class Scaled:
    """Training and test numbers, float32, and what they were divided by (a number, or one for each column)."""

    train: np.ndarray
    test: np.ndarray
    deviation: np.ndarray


def standardised(train: np.ndarray, test: np.ndarray) -> Scaled:
    """Both with the training mean and deviation: of each column of a table, of all pixels of images together.

    A column with one value on the training examples becomes 0 there, and is not divided.
    """
    axis = 0 if train.ndim <= 2 else None
    mean, deviation = train.mean(axis=axis, dtype=np.float64), train.std(axis=axis, dtype=np.float64)
    low = train.min(axis=axis)
    # The mean of equal numbers is rounded, so that their deviation is tiny rather than 0.
    constant = (low == train.max(axis=axis)) | (deviation == 0)
    mean, deviation = np.where(constant, low.astype(np.float64), mean), np.where(constant, 1.0, deviation)
    scaled = [(np.subtract(part, mean, dtype=np.float64) / deviation).astype(np.float32) for part in (train, test)]
    return Scaled(scaled[0], scaled[1], deviation)


def as_they_are(train: np.ndarray, test: np.ndarray, where: str) -> Scaled:
    """Both as float32 without scaling.

    Raises
    ------
    DataError
        If the training numbers lie so close together, for their size, that float32 cannot tell them apart: its steps
        are more than a tenth of their deviation. `where` names them.
    """
    with np.errstate(over="ignore"):
        cast = [part.astype(np.float32) for part in (train, test)]
    if not all(np.isfinite(part).all() for part in cast):
        raise DataError(f"{where}: holds numbers beyond float32, which ends at 3.4e38; set data.standardise = true")
    axis = 0 if train.ndim <= 2 else None
    largest, deviation = np.abs(cast[0]).max(axis=axis), train.std(axis=axis, dtype=np.float64)
    step = np.spacing(largest).astype(np.float64)
    # Whole numbers beyond 2^53 are compared as float64, which changes them, too.
    changed = (cast[0] != train).any(axis=axis) | (largest > 2**53)
    varies = train.min(axis=axis) != train.max(axis=axis)
    lost = np.atleast_1d(changed & varies & (step > _LOST * deviation))
    if lost.any():
        column = int(np.flatnonzero(lost)[0])
        raise DataError(
            f"{where}: float32 has steps of {np.atleast_1d(step)[column]:g} where these numbers lie, and their "
            f"deviation is {np.atleast_1d(deviation)[column]:.3g}; set data.standardise = true, or take the offset off"
        )
    return Scaled(cast[0], cast[1], np.ones(()))
