"""Convolutional networks in the style of LeNet: two 5x5 convolutions, each halved by max-pooling, and dense layers.

LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998). The defaults (32 and 64 channels, 512
units) are the network of "Communication-Efficient Learning of Deep Networks from Decentralized Data" (McMahan et al.,
2017); ``channels = [6, 16]``, ``hidden = [120, 84]`` and ``padding = 0`` give LeNet-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import nn

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import HiddenNorm, OutNorm, norm_of_channels, norm_of_rows
from fedmtl.models.shapes import image_shape, positive
from fedmtl.tasks import Task

KERNEL = 5


def lenet(
    input_shape: Sequence[int],
    tasks: Sequence[Task],
    *,
    channels: Annotated[tuple[int, int], Param("channels of the two convolutions", source="paper")] = (32, 64),
    hidden: Annotated[tuple[int, ...], Param("units of the dense layers", source="paper")] = (512,),
    padding: Annotated[int, Param("zeros around each convolution's input, pixels", ge=0, le=2)] = 2,
    norm: HiddenNorm = "none",
    out_norm: OutNorm = "none",
) -> MultiTaskModel:
    """Two 5x5 convolutions with ReLU and 2x2 max-pooling, then dense layers; for images."""
    depth, height, width = image_shape(input_shape, "lenet", _smallest(padding))
    first, second = positive(channels, "model.channels", count=2)
    rows, columns = _after(height, padding), _after(width, padding)
    widths = (second * rows * columns, *positive(hidden, "model.hidden"))
    if len(widths) < 2:
        raise ConfigError("model.hidden is empty: name at least one dense layer")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((depth, first, second)):
        convolution = nn.Conv2d(inputs, outputs, KERNEL, padding=padding)
        layers += [convolution, *norm_of_channels(norm, outputs), nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), *norm_of_rows(norm, outputs), nn.ReLU()]
    layers += norm_of_rows(out_norm, widths[-1])
    return MultiTaskModel(nn.Sequential(*layers), widths[-1], tasks)


def _after(size: int, padding: int) -> int:
    """Pixels along one side after both convolutions and poolings."""
    for _ in range(2):
        size = (size + 2 * padding - KERNEL + 1) // 2
    return size


def _smallest(padding: int) -> int:
    """The smallest side that leaves a pixel at the end."""
    return next(size for size in range(1, 100) if _after(size, padding) >= 1)
