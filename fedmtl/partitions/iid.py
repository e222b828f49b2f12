"""Every client's examples come from the same distribution."""

from __future__ import annotations

import numpy as np

from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import check_enough, parts_of
from fedmtl.randomness import numpy_generator


def iid(pool: Pool, clients: int, seed: int) -> list[np.ndarray]:
    """Random shards of near-equal size (they differ by one example at most)."""
    examples = len(pool.train)
    check_enough(examples, clients)
    owner = np.empty(examples, dtype=np.int64)
    owner[numpy_generator(seed, "iid").permutation(examples)] = np.arange(examples) * clients // examples
    return parts_of(owner, clients)
