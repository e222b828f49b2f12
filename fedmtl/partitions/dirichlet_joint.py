"""Skew in several tasks at once: the combinations of their classes are shared out by Dirichlet draws."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import at_least, check_enough, parts_of
from fedmtl.partitions.dirichlet import dirichlet_owner
from fedmtl.partitions.strata import Bins, joint_strata
from fedmtl.randomness import numpy_generator


def dirichlet_joint(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    by_tasks: Annotated[
        tuple[str, ...], Param("tasks whose combinations of classes and bins are skewed; empty for all tasks")
    ] = (),
    alpha: Annotated[
        float, Param("concentration; the smaller, the fewer combinations a client has", gt=0, le=1e6)
    ] = 0.3,
    bins: Bins = 2,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it drew fewer", ge=1)
    ] = 1,
) -> list[np.ndarray]:
    """Each combination of the tasks' classes that occurs is shared out by one draw of Dir(alpha) over the clients.

    So every one of the tasks is skewed, and they are skewed together: a client that has much of a class of one task has
    what goes with it in the others. The more combinations there are, the fewer examples has each, and the less a client
    is skewed in any task alone: name few tasks, and use few bins.

    Raises
    ------
    ConfigError
        If a task does not exist, or is named twice.
    DataError
        If there are too few examples for so many clients, or a target has fewer different values than bins.
    """
    labels = joint_strata(pool, by_tasks, bins).labels
    check_enough(len(labels), clients, min_examples)
    rng = numpy_generator(seed, "dirichlet-joint")
    owner = dirichlet_owner(labels, clients, alpha, rng, rng)
    return parts_of(at_least(owner, clients, min_examples, rng), clients)
