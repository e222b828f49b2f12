"""Label skew: every client has a few classes only (Flower Datasets' partitioner)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import DataError
from fedmtl.partitions.cutting import check_enough, counted, labels_of
from fedmtl.randomness import derive_seed

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


def pathological(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    classes_per_client: Annotated[int, Param("classes that every client has", ge=1, source="paper")] = 2,
    assignment: Annotated[
        Literal["first-deterministic", "random", "deterministic"],
        Param("how classes are given to clients, as Flower Datasets names it", source="paper"),
    ] = "first-deterministic",
    by: Annotated[str, Param("task whose labels are skewed; empty for the first classification task")] = "",
) -> list[np.ndarray]:
    """Every client has exactly so many classes, each cut into equal parts among those who have it.

    Examples of a class that no client was given are not used; that happens with few clients only.

    Raises
    ------
    DataError
        If a class has fewer examples than clients that need it, or there are fewer classes than a client needs.
    """
    from flwr_datasets.partitioner import PathologicalPartitioner

    labels, classes = labels_of(pool, by)
    check_enough(len(labels), clients)
    if classes_per_client > classes:
        raise DataError(f"data.classes_per_client = {classes_per_client}: the data have {counted(classes)} only")
    partitioner = PathologicalPartitioner(
        clients, "label", classes_per_client, assignment, shuffle=False, seed=derive_seed(seed, "pathological")
    )
    try:
        return flower_parts(partitioner, clients, labels)
    except ValueError:
        raise DataError(
            f"data.clients = {clients} with data.classes_per_client = {classes_per_client}: a class has fewer examples "
            "than clients that need it; use fewer clients, fewer classes per client or "
            "data.assignment = 'deterministic'"
        ) from None


def flower_parts(partitioner: Partitioner, clients: int, labels: np.ndarray) -> list[np.ndarray]:
    """The positions that a partitioner of Flower Datasets gives to each client, ascending.

    Parameters
    ----------
    partitioner
        Any that partitions by a column ``label``.
    clients
        How many partitions it makes.
    labels
        The column, int64 of shape [n].
    """
    import datasets

    class Labels(datasets.Dataset):  # type: ignore[misc]
        """A column of labels whose selections are positions: building a data set per client takes a millisecond."""

        def select(self, indices: Any, *_: Any, **__: Any) -> Any:
            return np.sort(np.asarray(indices, dtype=np.int64))

    partitioner.dataset = Labels.from_dict({"label": labels})
    with warnings.catch_warnings():
        # Unused classes are documented; the library's advice names an option that it does not have.
        warnings.simplefilter("ignore", UserWarning)
        return [np.asarray(partitioner.load_partition(client)) for client in range(clients)]
