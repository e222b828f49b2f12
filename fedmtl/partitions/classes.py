"""FedCompass's class partition: every client has a random number of classes (arXiv 2309.14675, Algorithm 4)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions.cutting import at_least, check_enough, counted, cut_by_shares, labels_of, parts_of
from fedmtl.randomness import numpy_generator

# Least and largest number of classes by number of clients, for ten classes (authors' code).
_BOUNDS = {1: (10, 10), 2: (7, 8), 3: (6, 8), 4: (5, 7), 5: (5, 6), 6: (4, 6), 7: (4, 5)}
_BOUNDS_OF_MANY = (3, 5)
_DRAWS = 1000


def class_partition(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    min_classes: Annotated[
        int | None, Param("least number of classes of a client; unset: by number of clients", ge=1, source="paper")
    ] = None,
    max_classes: Annotated[
        int | None, Param("largest number of classes of a client; unset: by number of clients", ge=1, source="paper")
    ] = None,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it has fewer", ge=1)
    ] = 1,
    by: Annotated[str, Param("task whose labels are skewed; empty for the first classification task")] = "",
) -> list[np.ndarray]:
    """Every client draws how many classes it has, and which; a class is cut among its owners by lengths ``|N(10, 3)|``.

    The whole draw of classes is repeated until each class has an owner.

    Raises
    ------
    DataError
        If there are too few examples or classes, or no draw gives every class an owner.
    """
    labels, classes = labels_of(pool, by)
    check_enough(len(labels), clients, min_examples)
    rng = numpy_generator(seed, "class partition")
    owns = _draw_classes(clients, np.unique(labels), _bounds(clients, classes, min_classes, max_classes), rng)
    owner = np.empty(len(labels), dtype=np.int64)
    for column, label in enumerate(np.unique(labels)):
        members = rng.permutation(np.flatnonzero(labels == label))
        owners = np.flatnonzero(owns[:, column])
        lengths = np.abs(rng.normal(10, 3, size=len(owners)))
        owner[members] = owners[cut_by_shares(len(members), lengths / lengths.sum())]
    return parts_of(at_least(owner, clients, min_examples, rng), clients)


def _bounds(clients: int, classes: int, least: int | None, most: int | None) -> tuple[int, int]:
    default_least, default_most = _BOUNDS.get(clients, _BOUNDS_OF_MANY)
    low = min(default_least, classes) if least is None else least
    high = max(low, min(default_most, classes)) if most is None else most
    if low > high:
        raise DataError(f"data.min_classes = {low} is larger than data.max_classes = {high}")
    if high > classes:
        raise DataError(f"data.max_classes = {high}: the data have {counted(classes)} only")
    return low, high


def _draw_classes(clients: int, labels: np.ndarray, bounds: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Which client has which class, bool of shape [clients, classes]."""
    for _ in range(_DRAWS):
        many = rng.integers(bounds[0], bounds[1] + 1, size=clients)
        place = rng.permuted(np.tile(np.arange(len(labels)), (clients, 1)), axis=1)
        owns = place < many[:, None]
        if owns.any(axis=0).all():
            return np.asarray(owns)
    raise DataError(
        f"data.clients = {clients} with at most {bounds[1]} classes each: in {_DRAWS} draws some of the {len(labels)} "
        "classes had no owner; use more clients or a larger data.max_classes"
    )
