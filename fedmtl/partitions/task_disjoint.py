"""Task skew: no two tasks share an example or a client."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.ownership import task_groups
from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import at_least, check_enough, parts_of
from fedmtl.partitions.dirichlet import dirichlet_owner
from fedmtl.partitions.strata import ordinal_bins
from fedmtl.randomness import numpy_generator


def task_disjoint(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    alpha: Annotated[
        float, Param("concentration over the targets of a client's own task; large for no skew", gt=0, le=1e6)
    ] = 1.0,
    bins: Annotated[int, Param("equal-sized bins that a regression target is cut into", ge=2)] = 10,
    min_examples: Annotated[
        int, Param("examples that every client has at least, taken from the largest shards where it drew fewer", ge=1)
    ] = 1,
) -> list[np.ndarray]:
    """Every client serves one task, and its shard is skewed in that task's own target.

    The groups of clients are those that ``tasks.ownership = "disjoint"`` makes. The examples are dealt to the groups at
    random, in proportion to their clients; within a group, the classes (or the bins of a regression target) of the
    group's task are shared out by draws of Dir(alpha).

    Raises
    ------
    DataError
        If there are fewer clients than tasks, or too few examples.
    """
    examples = len(pool.train)
    check_enough(examples, clients, min_examples)
    groups = task_groups(clients, len(pool.tasks), seed)
    rng = numpy_generator(seed, "task-disjoint")
    seat = np.empty(examples, dtype=np.int64)
    seat[rng.permutation(examples)] = np.arange(examples) * clients // examples
    owner = np.empty(examples, dtype=np.int64)
    for index, (task, target) in enumerate(zip(pool.tasks, pool.train.targets, strict=True)):
        members, group = np.flatnonzero(groups[seat] == index), np.flatnonzero(groups == index)
        values = target.numpy()[members]
        labels = ordinal_bins(values, bins) if task.kind == "regression" else values.astype(np.int64)
        local = dirichlet_owner(labels, len(group), alpha, rng, rng)
        owner[members] = group[at_least(local, len(group), min_examples, rng)]
    return parts_of(owner, clients)
