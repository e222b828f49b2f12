"""Label skew in two steps: so many classes a client, and then Dirichlet draws among those who have a class."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions.cutting import at_least, check_enough, cut_by_shares, parts_of
from fedmtl.partitions.strata import Bins, By, Strata, strata_of
from fedmtl.randomness import numpy_generator


def extended_dirichlet(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    classes_per_client: Annotated[int, Param("C, the classes that every client has", ge=1, source="paper")] = 2,
    alpha: Annotated[
        float, Param("concentration over the clients that have a class; large for equal parts", gt=0, le=1e6)
    ] = 1.0,
    min_examples: Annotated[
        int,
        Param("examples that every client has at least: of each of its classes a C-th of them, rounded up", ge=1),
    ] = 1,
    by: By = "",
    bins: Bins = 10,
) -> list[np.ndarray]:
    """Every client has exactly C classes, and each class is shared out by Dir(alpha) over the clients that have it.

    "Convergence Analysis of Sequential Federated Learning on Heterogeneous Data" (arXiv 2311.03154), there ExDir(C,
    alpha). A client chooses the C classes that have the most examples for each of those who chose them so far, at
    random among equals: so every class has an owner, and frequent classes have more of them. The paper repeats all
    draws until everybody has enough; here a client that drew too few of a class is filled up from the largest owners of
    that class, so that it has examples of all its C classes and of no others.

    Raises
    ------
    DataError
        If a client is to have more classes than there are, all clients together have room for fewer, or a class has
        fewer examples than its clients need.
    """
    strata = strata_of(pool, by, bins)
    check_enough(len(strata.labels), clients, min_examples)
    _check_room(strata, clients, classes_per_client)
    rng = numpy_generator(seed, "extended-dirichlet")
    owns = _choose_classes(strata.sizes, clients, classes_per_client, rng)
    least = -(-min_examples // classes_per_client)
    owner = np.empty(len(strata.labels), dtype=np.int64)
    for label in range(strata.count):
        members, owners = rng.permutation(np.flatnonzero(strata.labels == label)), np.flatnonzero(owns[:, label])
        if len(members) < least * len(owners):
            raise DataError(
                f"data.clients = {clients} with data.classes_per_client = {classes_per_client}: {len(owners)} clients "
                f"need at least {least * len(owners)} examples of a class that has {len(members)}; use fewer clients, "
                "fewer classes per client" + (" or a smaller data.min_examples" if least > 1 else "")
            )
        shares = rng.dirichlet(np.full(len(owners), alpha))
        owner[members] = owners[at_least(cut_by_shares(len(members), shares), len(owners), least, rng)]
    return parts_of(owner, clients)


def _check_room(strata: Strata, clients: int, classes_per_client: int) -> None:
    if classes_per_client > strata.count:
        raise DataError(f"data.classes_per_client = {classes_per_client}: the data have {strata.words} only")
    if clients * classes_per_client < strata.count:
        raise DataError(
            f"data.clients = {clients} with data.classes_per_client = {classes_per_client} have room for "
            f"{clients * classes_per_client}, the data have {strata.words}; use more clients or more classes per client"
        )


def _choose_classes(sizes: np.ndarray, clients: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Which client has which class, bool of shape [clients, classes of the data], so many in each row."""
    owns = np.zeros((clients, len(sizes)), dtype=bool)
    owners = np.zeros(len(sizes))
    for client in rng.permutation(clients).tolist():
        with np.errstate(divide="ignore"):
            chosen = np.lexsort((rng.random(len(sizes)), -(sizes / owners)))[:classes]
        owns[client, chosen] = True
        owners[chosen] += 1
    return owns
