"""A shared backbone with a head per task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedmtl.tasks import Task


class MultiTaskModel(nn.Module):
    """A backbone that maps inputs to a representation, and for each task a linear head on it.

    Parameters
    ----------
    backbone
        Maps inputs [batch, ...] to representations [batch, width].
    width
        Size of a representation.
    tasks
        The tasks, in order.
    """

    def __init__(self, backbone: nn.Module, width: int, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict({task.key: nn.Linear(width, task.outputs) for task in tasks})

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Every head's output, each of shape [batch, outputs]."""
        representation = self.backbone(inputs)
        return tuple(head(representation) for head in self.heads.values())


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """The model as it predicts: no graph, and statistics and dropout as they are; afterwards it is in its old mode."""
    mode = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(mode)
