"""FedCompass's dual Dirichlet partition: sizes and classes are both skewed (arXiv 2309.14675, Algorithm 5)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions.cutting import at_least, check_enough, labels_of, parts_of
from fedmtl.randomness import numpy_generator


def dual_dirichlet(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    alpha1: Annotated[
        float | None,
        Param("concentration over clients, divided among them; unset: the number of clients", gt=0, source="paper"),
    ] = None,
    alpha2: Annotated[
        float, Param("concentration over classes, divided among them by frequency", gt=0, le=1e6, source="paper")
    ] = 0.5,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it drew fewer", ge=1)
    ] = 1,
    by: Annotated[str, Param("task whose labels are skewed; empty for the first classification task")] = "",
) -> list[np.ndarray]:
    """One Dirichlet draw for the clients' sizes, one per client for its classes.

    With p1 uniform over the clients and p2 the classes' frequencies, ``weights ~ Dir(alpha1 p1)`` and for each client
    ``ind_i ~ Dir(alpha2 p2)``; client i gets the share ``weights_i ind_ij / sum_k weights_k ind_kj`` of class j, as a
    whole number of examples, and the last client the remainder.

    Raises
    ------
    DataError
        If there are too few examples, or the draws underflow.
    """
    labels, classes = labels_of(pool, by)
    check_enough(len(labels), clients, min_examples)
    rng = numpy_generator(seed, "dual-dirichlet")
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    weights = rng.dirichlet(np.full(clients, (alpha1 or clients) / clients))
    ind = rng.dirichlet(alpha2 * counts[present] / len(labels), size=clients)
    mass = weights[:, None] * ind
    total = mass.sum(axis=0)
    if not total.all():
        raise DataError("data.alpha1 or data.alpha2 is so small that no client has any share of some class; enlarge it")
    owner = np.empty(len(labels), dtype=np.int64)
    for label, shares in zip(present, (mass / total).T, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        sizes = (shares * len(members)).astype(np.int64)
        sizes[-1] += len(members) - sizes.sum()
        owner[members] = np.repeat(np.arange(clients), sizes)
    return parts_of(at_least(owner, clients, min_examples, rng), clients)
