"""What an update that came from outside must be like to be applied."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.protocol import GlobalModel, Update


def content_fault(update: Update, model: GlobalModel, reported: Sequence[str]) -> str | None:
    """Why an update's content cannot be of use, or None.

    Parameters
    ----------
    update
        It answers an order; its delta is restored if it was compressed.
    model
        The newest model.
    reported
        The vectors that the client must have sent beside the delta, shape [P].
    """
    if (fault := _vector_fault("delta", update.delta, model.vector)) is not None:
        return fault
    for name in reported:
        if name not in update.vectors:
            return f"lacks the vector {name!r}"
        if (fault := _vector_fault(name, update.vectors[name], model.vector)) is not None:
            return fault
    if not all(map(math.isfinite, update.terms.values())):
        return "a term is not finite"
    if update.examples < 1 or update.steps < 1:
        return f"trained {update.steps} steps on {update.examples} examples"
    if not 0.0 <= update.momentum < 1.0 or not 0.0 <= update.learning_rate < math.inf:
        return f"claims momentum {update.momentum} and learning rate {update.learning_rate}"
    heads = len(model.layout.heads)
    if not update.tasks or len(set(update.tasks)) < len(update.tasks) or not set(update.tasks) <= set(range(heads)):
        return f"claims the tasks {update.tasks} of {heads}"
    return None


def _vector_fault(name: str, vector: Tensor, expected: Tensor) -> str | None:
    if vector.shape != expected.shape or vector.dtype != expected.dtype:
        return f"{name} is {_kind(vector)}, expected {_kind(expected)}"
    # One pass: the squared norm is finite unless an entry is not or it overflows; the exact test tells these apart.
    if not math.isfinite(torch.dot(vector, vector).item()) and not torch.isfinite(vector).all():
        return f"{name} is not finite"
    return None


def _kind(vector: Tensor) -> str:
    return f"{vector.dtype} of shape {tuple(vector.shape)}"
