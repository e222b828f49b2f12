"""Feature skew: clients see different regions of the input space."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError
from fedmtl.partitions.cutting import check_enough, parts_of
from fedmtl.randomness import numpy_generator

_STEPS = 30


def feature_skew(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    skew: Annotated[
        float,
        Param("correlation between a client's place and its features: 0 is i.i.d., 1 strictly sorted", ge=0, le=1),
    ] = 0.9,
) -> list[np.ndarray]:
    """Shards of near-equal size along the first principal component of the features.

    The examples are sorted by ``skew z + sqrt(1 - skew^2) e``, z their standardised projection on the component and e
    standard Gaussian noise, and cut into consecutive shards; which shard goes to which client is random.

    Raises
    ------
    ConfigError
        If the features are symbols (text).
    DataError
        If there are fewer examples than clients.
    """
    if not pool.train.features.is_floating_point():
        raise ConfigError("data.partition = 'feature-skew' needs numeric features, these are symbols; use another")
    examples = len(pool.train)
    check_enough(examples, clients)
    rng = numpy_generator(seed, "feature-skew")
    projection = _first_component(pool.train.features.numpy().reshape(examples, -1))
    score = skew * projection + np.sqrt(1 - skew**2) * rng.standard_normal(examples)
    owner = np.empty(examples, dtype=np.int64)
    owner[np.argsort(score, kind="stable")] = np.arange(examples) * clients // examples
    return parts_of(rng.permutation(clients)[owner], clients)


def _first_component(features: np.ndarray) -> np.ndarray:
    """Standardised projections on the first principal component, by power iteration; shape [n]."""
    mean = features.mean(axis=0, dtype=np.float64)
    direction = features.var(axis=0, dtype=np.float64)
    for _ in range(_STEPS):
        projection = features @ direction.astype(np.float32) - mean @ direction
        direction = features.T @ projection.astype(np.float32) - mean * projection.sum()
        norm = np.linalg.norm(direction)
        if norm == 0:
            return np.zeros(len(features))
        direction = direction / norm
    projection = (features @ direction.astype(np.float32)).astype(np.float64)
    projection -= projection.mean()
    deviation = projection.std()
    return np.asarray(projection / deviation) if deviation > 0 else projection
