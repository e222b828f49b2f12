"""Ferret's compressor: an update's coordinates along random vectors that client and server draw alike.

"Ferret: Federated Full-Parameter Tuning at Scale for Large Language Models" (ICML 2025, arXiv 2409.06277). The tensors
of a model are joined, in order, into groups g of at least 0.9 times the median tensor's size. For the update Delta_g of
a group, a vector of d_g entries,

    K_g = max(2, floor(K ||Delta_g|| / max_h ||Delta_h||))      how many seeds, at most K
    v_s ~ N(0, I) truncated to +-1/sqrt(d_g), entry by entry    the same for all clients that start from a version
    c_s = <Delta_g, v_s> / (K_g z)                              what is sent, for s = 1..K_g
    Delta_g ~ sum_s c_s v_s                                     what the server makes of it

and with the K_g themselves, one number for each group, that is all that goes up of what is trained. The server's sum is
linear in the c_s: to average the restored updates is to average coordinates, as in the paper.

z is the variance of an entry of v_s (``scale = "unbiased"``), which makes the expectation of the restored update the
update itself, or ``1/d_g`` as in the authors' code, which shrinks it to about a third. Either way a restored update
is far longer than the true one where K_g is much smaller than d_g: by sqrt(1 + d_g / K_g) in the unbiased form. The
least error for such a form, on average, has the factor ``K_g / (K_g + d_g)`` (``scale = "least-error"``).

A term ``c_s v_s`` that is longer than `clip`, if that is set, is shortened to it. The authors clip the terms of the
mean of all clients' coordinates, which is the same where none is so long.

Batch-norm statistics go up whole, as with :mod:`fedmtl.compression.top_entries`: a variance that is right on average
would often be below zero.

Delta points in the direction of progress here, so that it is added, not subtracted. An update of zeros sends zeros.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.compression.base import CompressionError, Compressor
from fedmtl.parameters import ParameterLayout
from fedmtl.randomness import torch_generator

_ROWS = 64  # random vectors that are drawn together
_CACHED = 1 << 25  # entries of random vectors that are kept, for all clients start from one version


class SharedRandomness(Compressor):
    """Coordinates along shared random vectors (Ferret)."""

    name = "shared-randomness"

    def __init__(
        self,
        *,
        coordinates: Annotated[
            int, Param("K, most coordinates of a group of tensors", ge=2, source="authors' code (script)")
        ] = 200,
        scale: Annotated[
            Literal["unbiased", "least-error", "dimension"],
            Param("restored update: right on average, nearest on average, or the authors' 1/d_g"),
        ] = "unbiased",
        clip: Annotated[float, Param("most length of a term c_s v_s; 0: any", ge=0)] = 0.0,
    ) -> None:
        self.coordinates = coordinates
        self.scale = scale
        self.clip = clip
        self._blocks: OrderedDict[tuple[int, int, int, int], Tensor] = OrderedDict()
        self._kept = 0  # entries

    @property
    def options(self) -> Mapping[str, Any]:
        """K, the scale and the clip."""
        return {"coordinates": self.coordinates, "scale": self.scale, "clip": self.clip}

    def compress(self, delta: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """The K_g, then each group's coordinates, then the statistics."""
        parts = [delta[group] for group in groups_of(layout)]
        norms = torch.stack([torch.linalg.vector_norm(part) for part in parts]).tolist()
        counts = [coordinate_count(norm, max(norms), self.coordinates) for norm in norms]
        found = [torch.tensor(counts, dtype=torch.float32)]
        for index, (part, count) in enumerate(zip(parts, counts, strict=True)):
            along = torch.cat([block @ part for block in self._vectors(seed, index, part.numel(), count)])
            found.append(along * self._factor(part.numel(), count))
        return torch.cat([*found, delta[layout.buffers]])

    def restore(self, sent: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """The sum of the vectors, weighted with the coordinates, and the statistics."""
        groups, statistics = groups_of(layout), layout.size - int(layout.buffers.start)
        counts = self._counts(sent, len(groups), statistics)
        delta = torch.zeros(layout.size)
        delta[layout.buffers] = sent[sent.numel() - statistics :]
        start = len(groups)
        for index, (group, count) in enumerate(zip(groups, counts, strict=True)):
            part = delta[group]
            for block in self._vectors(seed, index, part.numel(), count):
                part += self._clipped(sent[start : start + len(block)], block) @ block
                start += len(block)
        return delta

    def most_entries(self, layout: ParameterLayout) -> int:
        """K coordinates and a count for each group, and the statistics."""
        return len(groups_of(layout)) * (1 + self.coordinates) + layout.size - int(layout.buffers.start)

    def _clipped(self, along: Tensor, block: Tensor) -> Tensor:
        """Coordinates whose terms are no longer than allowed."""
        # No v_s is longer than 1.
        if self.clip == 0 or float(along.abs().max()) <= self.clip:
            return along
        lengths = along.abs() * torch.linalg.vector_norm(block, dim=1)
        return along.mul((self.clip / lengths).clamp(max=1.0))

    def _counts(self, sent: Tensor, groups: int, statistics: int) -> list[int]:
        if sent.dim() != 1 or sent.dtype != torch.float32 or len(sent) < groups + statistics:
            raise CompressionError(f"coordinates are {sent.dtype} of shape {tuple(sent.shape)}")
        counts = sent[:groups].tolist()
        if any(count != math.floor(count) or not 2 <= count <= self.coordinates for count in counts if count == count):
            raise CompressionError(f"a group has fewer than 2 or more than {self.coordinates} coordinates")
        coordinates = len(sent) - groups - statistics
        if any(math.isnan(count) for count in counts) or sum(counts) != coordinates:
            raise CompressionError(f"{coordinates} coordinates came, which the groups' numbers do not add up to")
        return [int(count) for count in counts]

    def _factor(self, d: int, count: int) -> float:
        if self.scale == "dimension":
            return d / count
        unbiased = 1.0 / (count * entry_variance(d))
        return unbiased if self.scale == "unbiased" else unbiased * count / (count + d)

    def _vectors(self, seed: int, group: int, d: int, count: int) -> list[Tensor]:
        """The first `count` random vectors of a group, in blocks of shape [rows, d]."""
        blocks = [self._block(seed, group, block, d) for block in range(math.ceil(count / _ROWS))]
        blocks[-1] = blocks[-1][: count - _ROWS * (len(blocks) - 1)]
        return blocks

    def _block(self, seed: int, group: int, block: int, d: int) -> Tensor:
        key = (seed, group, block, d)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        bound = 1.0 / math.sqrt(d)
        generator = torch_generator(seed, "basis", group, block)
        vectors = torch.nn.init.trunc_normal_(torch.empty(_ROWS, d), a=-bound, b=bound, generator=generator)
        self._blocks[key] = vectors
        self._kept += vectors.numel()
        while self._kept > _CACHED and len(self._blocks) > 1:
            self._kept -= self._blocks.popitem(last=False)[1].numel()
        return vectors


def coordinate_count(norm: float, largest: float, most: int) -> int:
    """K_g; 2 where nothing moved or nothing is finite."""
    share = norm / largest if largest > 0 and math.isfinite(largest) else 0.0
    return max(2, math.floor(most * share)) if share <= 1 else 2


def entry_variance(d: int) -> float:
    """Variance of a standard normal variable that is truncated to ``+-1/sqrt(d)``."""
    a = 1.0 / math.sqrt(d)
    density = math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    return 1.0 - 2.0 * a * density / math.erf(a / math.sqrt(2.0))


def groups_of(layout: ParameterLayout) -> list[slice]:
    """The slices of the groups; together they are all that is trained."""
    end = int(layout.trainable.stop)
    trained = [entry for entry in layout.entries if entry.stop <= end]
    sizes = sorted(entry.stop - entry.start for entry in trained)
    if not sizes:
        return [slice(0, end)]
    least = 0.9 * sizes[len(sizes) // 2]
    cuts = [0]
    for entry in trained:
        if entry.stop - cuts[-1] >= least:
            cuts.append(entry.stop)
    if cuts[-1] != end:  # what is left at the end is too small for a group of its own
        cuts[-1 if len(cuts) > 1 else len(cuts) :] = [end]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
