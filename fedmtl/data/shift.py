"""Feature shift: every client sees the world through an instrument of its own.

The labels' distribution given the features then differs between clients, whatever the partition. A client's training
and held-out features are transformed, the server's test set is not: the global model is judged on the world as it is.

Client k has the strength ``u_k = r_k / N`` of the N clients, r a random order of 1..N, so that the strengths are evenly
spaced and tell nothing of the client's number:

``"rotation"``
    The image is turned by ``strength (2 u_k - 1)`` degrees about its centre, counter-clockwise if positive; values
    between pixels are interpolated linearly, and those beyond the edge are the edge's. With 180 and four clients these
    are the four rotations of rotated MNIST in "An Efficient Framework for Clustered Federated Learning" (arXiv
    2006.04088).
``"noise"``
    Gaussian noise of deviation ``strength u_k`` is added to each entry, in the unit of the features; as in "Federated
    Learning on Non-IID Data Silos: An Experimental Study" (arXiv 2102.02079), where client k of N has ``sigma k / N``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.randomness import numpy_generator, torch_generator
from fedmtl.settings import ShiftKind

USUAL: dict[ShiftKind, float] = {"rotation": 45.0, "noise": 0.1}
"""Strengths where none is given: the noise is that of arXiv 2102.02079, the rotation is ours."""

_LARGEST_ROTATION = 180.0
_GRID = 9
"""Decimals of a pixel's place: a quarter turn is then exact, for a sine of 6e-17 is none."""


@dataclass(frozen=True, eq=False)
class Shift:
    """A shift of the features.

    Attributes
    ----------
    kind
        ``"rotation"`` or ``"noise"``.
    strength
        The largest, in degrees or in the unit of the features.
    levels
        What each client has: degrees from -strength to strength, or deviations from 0 to strength; shape [clients].
    seed
        Of the noise.
    """

    kind: ShiftKind
    strength: float
    levels: np.ndarray
    seed: int

    @property
    def unit(self) -> str:
        """Of the strength and the levels."""
        return "degrees" if self.kind == "rotation" else "units of the features"

    @property
    def words(self) -> str:
        """What it is, in a line."""
        if self.kind == "rotation":
            return f"images turned by {self.levels.min():g} to {self.levels.max():g} degrees"
        return f"noise of deviation {self.levels.min():g} to {self.levels.max():g} added"

    def apply(self, client: int, features: Tensor) -> Tensor:
        """A client's features, shape [n, ...], as it sees them; all that it has, ascending, for noise is drawn for all.

        Raises
        ------
        ConfigError
            If features are to be rotated that are no images, or disturbed that are symbols, or by more than numbers
            can hold.
        """
        level = float(self.levels[client])
        if self.kind == "rotation":
            _refuse_no_images(features)
            return features if level == 0 else rotated(features, level)
        if not features.is_floating_point():
            raise ConfigError(f"data.shift = 'noise' needs numeric features, these are {features.dtype} symbols")
        generator = torch_generator(self.seed, "shift noise", client)
        noisy = features + level * torch.randn(features.shape, generator=generator, dtype=features.dtype)
        if not bool(torch.isfinite(noisy).all()) and bool(torch.isfinite(features).all()):
            raise ConfigError(
                f"data.shift_strength = {self.strength:g}: noise of that deviation is more than {features.dtype} holds"
            )
        return noisy


def shift_strength(kind: ShiftKind, strength: float | None) -> float:
    """The strength in force; 0 if there is no shift.

    Raises
    ------
    ConfigError
        If there is a strength without a shift, or a rotation of more than half a turn.
    """
    if kind == "none":
        if strength is not None:
            raise ConfigError(
                f"data.shift_strength = {strength:g} has no effect with data.shift = 'none': set data.shift to "
                "'rotation' or 'noise', or leave it out"
            )
        return 0.0
    if kind == "rotation" and strength is not None and strength > _LARGEST_ROTATION:
        raise ConfigError(
            f"data.shift_strength = {strength:g}: a rotation is at most {_LARGEST_ROTATION:g} degrees to either side"
        )
    return USUAL[kind] if strength is None else strength


def make_shift(kind: ShiftKind, strength: float | None, clients: int, seed: int) -> Shift | None:
    """The shift that a configuration asks for, or None.

    Raises
    ------
    ConfigError
        As `shift_strength` does.
    """
    largest = shift_strength(kind, strength)
    if largest == 0:
        return None
    share = (numpy_generator(seed, "shift").permutation(clients) + 1) / clients
    return Shift(kind, largest, largest * (2 * share - 1 if kind == "rotation" else share), seed)


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images turned about their centre, counter-clockwise; shape [n, channels, height, width], the same type.

    A pixel's value is interpolated linearly between the four around the place that it comes from; places outside are
    moved to the edge.
    """
    height, width = images.shape[-2:]
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Rows count downwards, so that this is the rotation back to where a pixel comes from.
    from_x = np.clip(np.round(cosine * x - sine * y + (width - 1) / 2, _GRID), 0, width - 1).ravel()
    from_y = np.clip(np.round(sine * x + cosine * y + (height - 1) / 2, _GRID), 0, height - 1).ravel()
    left, top = np.floor(from_x).astype(np.int64), np.floor(from_y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (from_x - left), (from_y - top)
    corners = [
        (top * width + left, (1 - across) * (1 - down)),
        (top * width + right, across * (1 - down)),
        (bottom * width + left, (1 - across) * down),
        (bottom * width + right, across * down),
    ]
    pixels = images.flatten(2)
    turned = torch.zeros_like(pixels)
    for places, weights in corners:
        turned += pixels[..., torch.from_numpy(places)] * torch.from_numpy(weights).to(pixels.dtype)
    return turned.view_as(images)


def _refuse_no_images(features: Tensor) -> None:
    if features.dim() != 4 or not features.is_floating_point():
        shape = tuple(features.shape[1:])
        raise ConfigError(
            f"data.shift = 'rotation' needs images of shape (channels, height, width); an example has "
            f"{'symbols' if not features.is_floating_point() else 'features'} of shape {shape}: use 'noise', or none"
        )
