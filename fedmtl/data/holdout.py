"""Each client's own validation examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmtl.data.federated import Shards
from fedmtl.randomness import numpy_generator


def hold_out(parts: Sequence[np.ndarray], fraction: float, seed: int) -> tuple[Shards, Shards]:
    """Split every client's examples into those it trains on and those it only validates on.

    A client with n examples holds out ``min(round(fraction n), n - 1)`` of them (halves are rounded up), so a tiny
    shard holds out nothing. Which ones is decided by a random number per example that depends on the seed alone.

    Parameters
    ----------
    parts
        For each client the positions of its examples.
    fraction
        Share of the examples that is held out, in [0, 1).
    seed
        Of the data: ``data.seed``, or the run's.

    Returns
    -------
    tuple of Shards
        Training and validation positions, ascending within each client.
    """
    whole = Shards(parts)
    sizes, positions = whole.sizes, whole.indices.numpy()
    client = np.repeat(np.arange(len(sizes)), sizes)
    held = np.clip(np.minimum(np.floor(fraction * sizes + 0.5).astype(np.int64), sizes - 1), 0, None)
    key = numpy_generator(seed, "hold-out").random(int(positions.max()) + 1 if len(positions) else 0)[positions]
    order = np.lexsort((key, client))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(whole.offsets[:-1], sizes)
    validates = rank < held[client]
    return Shards.of_sizes(positions[~validates], sizes - held), Shards.of_sizes(positions[validates], held)
