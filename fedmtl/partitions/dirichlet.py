"""Label skew: the classes are shared out by Dirichlet draws."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import at_least, check_enough, cut_by_shares, parts_of
from fedmtl.partitions.strata import Bins, By, strata_of
from fedmtl.randomness import numpy_generator


def dirichlet(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    alpha: Annotated[
        float, Param("concentration; the smaller, the fewer classes a client has", gt=0, le=1e6, source="paper")
    ] = 0.3,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it drew fewer", ge=1)
    ] = 1,
    by: By = "",
    bins: Bins = 10,
) -> list[np.ndarray]:
    """Each class, or bin of a regression target, is shared out by one draw of Dir(alpha) over the clients.

    The draws are those of Flower Datasets' ``DirichletPartitioner`` without self-balancing, so each client has the same
    number of examples of each class as there; but this needs no pandas and Arrow, and takes 100,000 clients in a
    fraction of a second. A draw that leaves a client with fewer than `min_examples` is not thrown away, as with many
    clients nearly every draw does: the client is filled up with random examples of the largest shards.

    Raises
    ------
    DataError
        If there are too few examples for so many clients, or a target has fewer different values than bins.
    """
    labels = strata_of(pool, by, bins).labels
    check_enough(len(labels), clients, min_examples)
    within = numpy_generator(seed, "dirichlet examples")
    owner = dirichlet_owner(labels, clients, alpha, numpy_generator(seed, "dirichlet"), within)
    return parts_of(at_least(owner, clients, min_examples, within), clients)


def dirichlet_owner(
    labels: np.ndarray, clients: int, alpha: float, shares: np.random.Generator, within: np.random.Generator
) -> np.ndarray:
    """The client of each example when every class is shared out by a draw of Dir(alpha), int64 of shape [n].

    Parameters
    ----------
    labels
        The class of each example, int64 of shape [n].
    clients, alpha
        Number of clients, and concentration.
    shares, within
        Draw the shares of the classes, and the order of the examples within a class.
    """
    owner = np.empty(len(labels), dtype=np.int64)
    concentration = np.full(clients, alpha)
    for label in np.unique(labels):
        members = within.permutation(np.flatnonzero(labels == label))
        owner[members] = cut_by_shares(len(members), shares.dirichlet(concentration))
    return owner
