"""Quantity skew: the shards differ in size only."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import at_least, check_enough, cut_by_shares, parts_of
from fedmtl.randomness import numpy_generator

Law = Literal["lognormal", "dirichlet", "linear", "square", "exponential"]


def quantity(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    law: Annotated[Law, Param("how the sizes are distributed")] = "lognormal",
    spread: Annotated[
        float, Param("sigma of 'lognormal', concentration of 'dirichlet'; the other laws have none", gt=0, le=1e6)
    ] = 1.0,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it drew fewer", ge=1)
    ] = 1,
) -> list[np.ndarray]:
    """Random shards of unequal size: lognormal or Dirichlet shares, or Flower Datasets' linear, square, exponential.

    The sizes of the last three are proportional to i, i^2 and exp(i), i = 1..clients, as with Flower Datasets'
    partitioners of these names. Those refuse sizes below one example, which 1297 examples for 100 clients already have;
    here such a client is filled up from the largest shards. Which client has which size is random.

    Raises
    ------
    DataError
        If there are too few examples for so many clients.
    """
    examples = len(pool.train)
    check_enough(examples, clients, min_examples)
    rng = numpy_generator(seed, "quantity")
    shares = rng.permutation(_shares(law, spread, clients, rng))
    owner = np.empty(examples, dtype=np.int64)
    owner[rng.permutation(examples)] = cut_by_shares(examples, shares)
    return parts_of(at_least(owner, clients, min_examples, rng), clients)


def _shares(law: Law, spread: float, clients: int, rng: np.random.Generator) -> np.ndarray:
    if law == "dirichlet":
        return rng.dirichlet(np.full(clients, spread))
    rank = np.arange(1.0, clients + 1)
    if law == "linear":
        logarithm = np.log(rank)
    elif law == "square":
        logarithm = 2 * np.log(rank)
    elif law == "exponential":
        logarithm = rank
    else:
        logarithm = spread * rng.standard_normal(clients)
    size = np.exp(logarithm - logarithm.max())
    return np.asarray(size / size.sum())
