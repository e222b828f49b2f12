"""Which client owns which task."""

from __future__ import annotations

import numpy as np

from fedmtl.errors import DataError
from fedmtl.randomness import numpy_generator


def task_owners(ownership: str, clients: int, tasks: int, seed: int) -> np.ndarray:
    """Owners of the tasks, bool of shape [clients, tasks]; every client has a task and every task an owner.

    Parameters
    ----------
    ownership
        ``"all"``: every client owns every task. ``"disjoint"``: every client owns one task, and the tasks have
        near-equal numbers of owners. ``"random"``: every client owns each task with probability 1/2. ``"skewed"``: as
        random, but task k (from 0) is owned with probability ``2^-k``, so that the last tasks are rare.
    clients, tasks
        Their numbers.
    seed
        Of the data: ``data.seed``, or the run's.

    Raises
    ------
    DataError
        If there are fewer clients than tasks to own disjointly.
    """
    if ownership == "all":
        return np.ones((clients, tasks), dtype=bool)
    if ownership == "disjoint":
        return np.asarray(np.equal.outer(task_groups(clients, tasks, seed), np.arange(tasks)))
    rng = numpy_generator(seed, "task ownership")
    probability = np.full(tasks, 0.5) if ownership == "random" else 0.5 ** np.arange(tasks)
    owners = np.less(rng.random((clients, tasks)), probability)
    orphans = np.flatnonzero(~owners.any(axis=0))
    owners[rng.integers(clients, size=len(orphans)), orphans] = True
    idle = np.flatnonzero(~owners.any(axis=1))
    owners[idle, rng.choice(tasks, size=len(idle), p=probability / probability.sum())] = True
    return np.asarray(owners)


def task_groups(clients: int, tasks: int, seed: int) -> np.ndarray:
    """The one task of each client where tasks are owned disjointly, int64 of shape [clients].

    Raises
    ------
    DataError
        If there are fewer clients than tasks.
    """
    if clients < tasks:
        raise DataError(
            f"data.clients = {clients}: {tasks} tasks that are owned disjointly need at least {tasks} clients; use "
            "more clients, fewer tasks (tasks.names) or tasks.ownership = 'all'"
        )
    return numpy_generator(seed, "task groups").permutation(np.arange(clients) % tasks)
