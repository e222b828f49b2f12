"""Label skew without quantity skew: shards of the examples sorted by class, as with the first FedAvg."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions.cutting import check_enough, parts_of
from fedmtl.partitions.strata import Bins, By, strata_of
from fedmtl.randomness import numpy_generator


def pathological_equal(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    classes_per_client: Annotated[
        int, Param("shards that every client has, each of one class, or of two where a class ends", ge=1)
    ] = 2,
    by: By = "",
    bins: Bins = 10,
) -> list[np.ndarray]:
    """Every client has so many shards of the examples sorted by class, and all have the same size, but for one example.

    "Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv 1602.05629) sorts the examples by
    their labels, cuts them into equal shards, and deals two to each client. Every example is used, which with exactly
    so many classes a client and equal sizes cannot be had: so a shard in which a class ends has the next one, too.
    Within a class the order is random.

    Raises
    ------
    DataError
        If a client is to have more classes than there are, or there are fewer examples than shards.
    """
    strata = strata_of(pool, by, bins)
    examples, shards = len(strata.labels), clients * classes_per_client
    check_enough(examples, clients)
    if classes_per_client > strata.count:
        raise DataError(f"data.classes_per_client = {classes_per_client}: the data have {strata.words} only")
    if examples < shards:
        raise DataError(
            f"data.clients = {clients} with data.classes_per_client = {classes_per_client} are {shards} shards, the "
            f"data have {examples} examples; use fewer clients or fewer classes per client"
        )
    rng = numpy_generator(seed, "pathological-equal")
    order = np.lexsort((rng.random(examples), strata.labels))
    sizes = rng.permutation(np.diff(np.arange(clients + 1) * examples // clients))
    # The shards of a client differ by one example at most, too, so that its size is what was dealt to it.
    of_client = [np.diff(np.arange(classes_per_client + 1) * size // classes_per_client) for size in sizes.tolist()]
    dealt = rng.permutation(shards)
    lengths, receivers = np.concatenate(of_client)[dealt], dealt // classes_per_client
    owner = np.empty(examples, dtype=np.int64)
    owner[order] = np.repeat(receivers, lengths)
    return parts_of(owner, clients)
