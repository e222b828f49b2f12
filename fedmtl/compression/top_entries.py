"""The largest entries of an update, and a memory for the others.

"Sparsified SGD with Memory" (NeurIPS 2018, arXiv 1809.07599). Of an update Delta with P trainable entries, and with
the memory m that the client keeps (0 at first), go up the

    k = max(1, floor(theta P)) largest entries of v = Delta + m, by their size, and their positions
    m <- beta (v - what went up)                                          theta: `share`, beta: `memory`

Batch-norm statistics go up whole: of some entries nothing could be predicted with. An entry takes 8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.compression.base import CompressionError, Compressor
from fedmtl.parameters import ParameterLayout


class TopEntries(Compressor):
    """The largest entries of an update; what is left may go with the next one."""

    name = "top-entries"

    def __init__(
        self,
        *,
        share: Annotated[float, Param("theta, share of the entries that go up", gt=0, le=1)] = 0.1,
        memory: Annotated[float, Param("beta, share of the others that is added to the next update", ge=0, le=1)] = 1.0,
    ) -> None:
        self.share = share
        self.memory = memory

    @property
    def options(self) -> Mapping[str, Any]:
        """The share theta and the memory beta."""
        return {"share": self.share, "memory": self.memory}

    def compress(self, delta: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """The entries, their positions in order (as the bits of whole numbers), and the statistics."""
        trained = delta[layout.trainable]
        positions = trained.abs().topk(self._count(layout)).indices.sort().values
        return torch.cat([trained[positions], positions.int().view(torch.float32), delta[layout.buffers]])

    def restore(self, sent: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """The entries in their places, zeros elsewhere. How many there are, an upload says itself."""
        size, statistics = layout.buffers.start, layout.size - layout.buffers.start
        count, odd = divmod(sent.numel() - statistics, 2)
        if sent.dim() != 1 or sent.dtype != torch.float32 or odd or not 0 < count <= size:
            raise CompressionError(f"entries and positions are {sent.dtype} of shape {tuple(sent.shape)}")
        positions = sent[count : 2 * count].view(torch.int32).long()
        if positions[0] < 0 or positions[-1] >= size or bool((positions[1:] <= positions[:-1]).any()):
            raise CompressionError(f"positions of entries are not in order, or lie outside 0..{size - 1}")
        delta = torch.zeros(layout.size)
        delta[positions] = sent[:count]
        delta[layout.buffers] = sent[2 * count :]
        return delta

    def most_entries(self, layout: ParameterLayout) -> int:
        """Entries, positions and statistics."""
        return 2 * self._count(layout) + layout.size - int(layout.buffers.start)

    def _count(self, layout: ParameterLayout) -> int:
        return max(1, math.floor(self.share * int(layout.buffers.start)))
