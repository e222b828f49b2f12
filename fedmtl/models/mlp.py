"""A multilayer perceptron, for examples of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import nn

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import HiddenNorm, OutNorm, norm_of_rows
from fedmtl.models.shapes import Flatten, flat_width, positive
from fedmtl.tasks import Task


def mlp(
    input_shape: Sequence[int],
    tasks: Sequence[Task],
    *,
    hidden: Annotated[tuple[int, ...], Param("units of the hidden layers")] = (64, 32),
    norm: HiddenNorm = "none",
    out_norm: OutNorm = "none",
) -> MultiTaskModel:
    """Multilayer perceptron with ReLU after every hidden layer; the last hidden layer is the representation."""
    widths = (flat_width(input_shape, "mlp"), *positive(hidden, "model.hidden"))
    if len(widths) < 2:
        raise ConfigError("model.hidden is empty: name at least one layer, or use model.name = 'linear'")
    layers: list[nn.Module] = [Flatten("mlp")]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), *norm_of_rows(norm, outputs), nn.ReLU()]
    layers += norm_of_rows(out_norm, widths[-1])
    return MultiTaskModel(nn.Sequential(*layers), widths[-1], tasks)
