"""What the models ask of their inputs and sizes, and how they say no."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from fedmtl.errors import ConfigError


class Flatten(nn.Module):
    """Inputs [batch, ...] of numbers as rows [batch, width].

    Raises
    ------
    ConfigError
        On forward, if the inputs are integers (tokens): only their data type sets them apart from a row of numbers.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """A row for each example, shape [batch, numbers of an example]."""
        if not inputs.is_floating_point():
            raise ConfigError(
                f"model.name = {self.model!r} reads floating-point features, but these are {inputs.dtype} (tokens?); "
                "use 'lstm' for text"
            )
        return inputs.flatten(1)


def flat_width(input_shape: Sequence[int], model: str) -> int:
    """Numbers in one example."""
    width = math.prod(input_shape)
    if not input_shape or width < 1:
        raise ConfigError(
            f"model.name = {model!r} needs at least one feature per example, not shape {tuple(input_shape)}"
        )
    return width


def image_shape(input_shape: Sequence[int], model: str, smallest: int) -> tuple[int, int, int]:
    """Channels, height and width of one example."""
    if len(input_shape) != 3:
        raise ConfigError(
            f"model.name = {model!r} reads images of shape (channels, height, width), but the examples have shape "
            f"{tuple(input_shape)}; use 'linear' or 'mlp' for plain features, 'lstm' for text"
            + (
                "; grey images need an axis for their one channel (data.channels = 'none' adds it)"
                * (len(input_shape) == 2)
            )
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model.name = {model!r} needs images of at least {smallest}x{smallest}, not {height}x{width}"
        )
    return channels, height, width


def positive(values: Sequence[int], key: str, count: int | None = None) -> tuple[int, ...]:
    """Layer sizes, all of them at least 1 (and `count` of them, if given)."""
    sizes = tuple(values)
    if any(size < 1 for size in sizes) or (count is not None and len(sizes) != count):
        expected = "positive numbers" if count is None else f"{count} positive numbers"
        raise ConfigError(f"{key} = {list(sizes)}: expected {expected}")
    return sizes
