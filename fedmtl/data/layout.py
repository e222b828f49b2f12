"""Where the channels of images are: models take them first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedmtl.errors import ConfigError, DataError

Channels = Literal["auto", "first", "last", "none"]
_MOST = 4
"""Channels that a picture may have for an axis to be taken for them: grey, grey with alpha, RGB, RGB with alpha."""


def channels_axis(shape: tuple[int, ...], asked: Channels, where: str) -> Channels:
    """Where the channels of an example of this shape are.

    Of three axes, the first or the last is that of the channels if it alone is at most 4 long. If both are, the one
    that leaves a square picture is. If neither is, the first is, unless the first two look like a square picture
    themselves. Shapes of fewer or more axes are no images.

    Parameters
    ----------
    shape
        Of one example.
    asked
        What the user says: ``"none"`` for grey images without that axis.
    where
        Names file and column, for messages.

    Raises
    ------
    ConfigError
        If what the user says does not fit the shape.
    DataError
        If the shape says it both ways.
    """
    if asked != "auto":
        axes = 2 if asked == "none" else 3
        if len(shape) != axes:
            raise ConfigError(f"data.channels = {asked!r}: {where} has examples of shape {shape}, not of {axes} axes")
        return asked
    if len(shape) != 3:
        return "first"
    first, middle, last = shape
    if (first <= _MOST) != (last <= _MOST):
        return "first" if first <= _MOST else "last"
    if first > _MOST and first != middle:
        return "first"  # as documented; a square before many planes looks like the other way round
    if first <= _MOST and (first == middle) != (middle == last):
        return "first" if middle == last else "last"
    raise DataError(
        f"{where}: examples of shape {shape} may be images of {first} channels and {middle} x {last} pixels, or of "
        f"{last} channels and {first} x {middle} pixels; set data.channels = 'first' or 'last'"
    )


def channels_first(images: np.ndarray, channels: Channels) -> np.ndarray:
    """Images of shape [n, channels, height, width]; a copy where their channels were elsewhere.

    Parameters
    ----------
    images
        Shape [n, ...].
    channels
        Where they are, as `channels_axis` says.
    """
    if channels == "last":
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return images[:, None] if channels == "none" else images
