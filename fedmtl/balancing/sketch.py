"""Gradients as few numbers that keep their products: a sparse random projection (count sketch).

"Finding Frequent Items in Data Streams" (Charikar, Chen and Farach-Colton, 2002) and "Feature Hashing for Large Scale
Multitask Learning" (Weinberger et al., 2009). Every coordinate j of a vector of length P has a bucket h(j) of m and a
sign s(j), both drawn from a seed that all clients share:

    S(g)_b = sum of s(j) g_j over h(j) = b,    E <S(x), S(y)> = <x, y>
    Var <S(x), S(y)> <= (||x||^2 ||y||^2 + <x, y>^2) / m

so a product is off by about ``sqrt(1/m)`` to ``sqrt(2/m)`` times the norms. S is linear: sketches of different batches
and clients add as the gradients do. It costs one pass over the gradient.

Difference: buckets are not drawn independently. Blocks of coordinates are dealt out evenly, which makes it less likely
that two of them meet, never more; with m >= P none meet, and products are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fedmtl.randomness import torch_generator

_BLOCK = 1 << 14  # coordinates that are dealt out together: their gathering stays within the cache


class Projection:
    """Sketches of length m, the same for equal seeds in any process.

    Parameters
    ----------
    size
        m.
    seed
        Of buckets and signs.

    Examples
    --------
    A thousand numbers give the cosine of two vectors of ten thousand:

    >>> import torch
    >>> from fedmtl.balancing.sketch import Projection
    >>> gradients = torch.stack([torch.linspace(-1, 1, 10_000), torch.linspace(-1, 2, 10_000)])
    >>> sketches = Projection(1_000, seed=0)(gradients)
    >>> sketches.shape
    torch.Size([2, 1000])
    >>> [torch.cosine_similarity(*rows, dim=0).round(decimals=2) for rows in (gradients, sketches)]
    [tensor(0.8700), tensor(0.8700)]
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._places: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, rows: Tensor) -> Tensor:
        """The sketches of some vectors, from shape [k, P] to [k, m]."""
        places = self._places_of(rows.shape[1], rows.device)
        if rows.is_cuda:
            return self._gathered(rows, places)
        sums = rows.new_zeros(len(rows), 2 * self.size).index_add_(1, places[: rows.shape[1]], rows)
        return sums[:, : self.size] - sums[:, self.size :]

    def _gathered(self, rows: Tensor, places: Tensor) -> Tensor:
        """The same where adding by index has no fixed order: coordinates are put into the order of their buckets."""
        order = (places % self.size).argsort(stable=True)
        signs = torch.where(places < self.size, 1.0, -1.0)[order].to(rows.dtype)
        padded = functional.pad(rows, (0, len(places) - rows.shape[1]))
        return (padded.index_select(1, order) * signs).view(len(rows), self.size, -1).sum(2)

    def _places_of(self, entries: int, device: torch.device) -> Tensor:
        """For each coordinate h, or m + h where its sign is negative; shape [P rounded up to a multiple of m]."""
        key = (entries, device)
        if key not in self._places:
            m = self.size
            padded = -(-entries // m) * m
            block = max(m, _BLOCK // m * m)
            generator = torch_generator(self.seed, "sketch", entries)
            dealt = [
                torch.randperm(min(block, padded - start), generator=generator) % m for start in range(0, padded, block)
            ]
            negative = torch.randint(0, 2, (padded,), generator=generator)
            places = torch.cat(dealt) + m * negative if dealt else negative
            self._places[key] = places.to(device)
        return self._places[key]
