"""One flat float32 vector per model.

The vector is laid out as ``[shared | head 0 | head 1 | ... | buffers]``: the backbone's parameters, then every head's
in the order of the tasks, then the floating-point buffers (batch-norm statistics). Integer buffers (batch counters) are
no part of it: they are never averaged and never sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fedmtl.models import MultiTaskModel


VARIANCE = "running_var"
"""What torch's norms call the buffer of their variances."""


@dataclass(frozen=True)
class Entry:
    """One parameter or buffer of a model and its place in the vector."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class ParameterLayout:
    """Names, shapes and slices of a model inside its flat vector.

    Attributes
    ----------
    entries
        Every parameter and floating-point buffer, in the order of the vector.
    shared
        The slice of the backbone's parameters.
    heads
        A slice for each task, in the order of the tasks.
    buffers
        The slice of the floating-point buffers.
    """

    entries: tuple[Entry, ...]
    shared: slice
    heads: tuple[slice, ...]
    buffers: slice

    @property
    def size(self) -> int:
        """Length of the vector."""
        return int(self.buffers.stop)

    @property
    def trainable(self) -> slice:
        """The slice of everything but the buffers."""
        return slice(0, self.buffers.start)

    @cached_property
    def variances(self) -> tuple[slice, ...]:
        """The slices of batch norm's variances, which are never below 0."""
        return tuple(
            slice(entry.start, entry.stop)
            for entry in self.entries
            if entry.start >= self.buffers.start and entry.name.rpartition(".")[2] == VARIANCE
        )

    def size_for(self, tasks: Sequence[int]) -> int:
        """Length of what a client with these tasks needs: the backbone, their heads and the buffers."""
        if len(tasks) == len(self.heads):
            return self.size
        heads = sum(self.heads[task].stop - self.heads[task].start for task in tasks)
        return int(heads + (self.shared.stop - self.shared.start) + (self.buffers.stop - self.buffers.start))

    @classmethod
    def of(cls, model: MultiTaskModel) -> ParameterLayout:
        """The layout of a model's vector."""
        entries: list[Entry] = []

        def add(named: Iterator[tuple[str, Tensor]], prefix: str) -> slice:
            first = entries[-1].stop if entries else 0
            for name, tensor in named:
                start = entries[-1].stop if entries else 0
                entries.append(Entry(prefix + name, tuple(tensor.shape), start, start + tensor.numel()))
            return slice(first, entries[-1].stop if entries else 0)

        shared = add(model.backbone.named_parameters(), "backbone.")
        heads = tuple(add(head.named_parameters(), f"heads.{name}.") for name, head in model.heads.items())
        buffers = add(((n, b) for n, b in model.named_buffers() if b.is_floating_point()), "")
        return cls(tuple(entries), shared, heads, buffers)

    def views(self, vector: Tensor) -> list[Tensor]:
        """The vector cut into views of the entries' shapes, without copying."""
        return [vector[e.start : e.stop].view(e.shape) for e in self.entries]

    def pack(self, model: MultiTaskModel) -> Tensor:
        """A new flat vector that holds the model's values."""
        tensors = _tensors(model)
        return torch.cat([tensors[e.name].detach().reshape(-1).float() for e in self.entries])

    def bind(self, model: MultiTaskModel, vector: Tensor) -> None:
        """Make the model's parameters and buffers views of `vector`: writing to either changes both."""
        tensors = _tensors(model)
        for entry, view in zip(self.entries, self.views(vector), strict=True):
            tensors[entry.name].data = view


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def cut(vector: Tensor, part: slice) -> Tensor:
    """A slice of a vector; the vector itself if it is all of it, for a view costs as much as adding 30,000 numbers."""
    return vector if part.stop - part.start == vector.numel() else vector[part]


_BLOCK = 1 << 20
"""Entries of a sum that are finished before the next ones are begun: 4 MB, which a processor's last cache holds."""


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], start: Tensor | None = None) -> Tensor:
    """``start + sum_k weights[k] * vectors[k]`` as a new vector, in one pass over the K vectors of P floats.

    The sum is taken block by block, so that the block of the result stays in the cache while the K vectors stream by;
    the vectors are added in their order, whatever the blocks. Without a start there must be a vector.
    """
    if start is not None and not vectors and not weights:
        return start.clone()
    result = torch.empty_like(vectors[0])
    whole = (result, *vectors) if start is None else (result, *vectors, start)
    blocks: Iterable[tuple[Tensor, ...]] = [whole]
    if result.numel() > _BLOCK:
        blocks = zip(*(torch.split(vector, _BLOCK) for vector in whole), strict=True)
    for part, *pieces in blocks:
        base = None if start is None else pieces.pop()
        for piece, weight in zip(pieces, weights, strict=True):
            # The first one is added on the way from `start`, which saves a copy.
            if base is None:
                torch.mul(piece, weight, out=part)
            else:
                torch.add(base, piece, alpha=weight, out=part)
            base = part
    return result
