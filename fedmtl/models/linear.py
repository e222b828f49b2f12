"""Linear models: the heads read the features themselves, and nothing is shared."""

from __future__ import annotations

from collections.abc import Sequence

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.shapes import Flatten, flat_width
from fedmtl.tasks import Task


def linear(input_shape: Sequence[int], tasks: Sequence[Task]) -> MultiTaskModel:
    """Linear heads on the flattened features; the backbone has no parameters."""
    return MultiTaskModel(Flatten("linear"), flat_width(input_shape, "linear"), tasks)
