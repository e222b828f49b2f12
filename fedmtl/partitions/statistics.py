"""How far clients' data are from the same distribution, in numbers.

Every function takes plain arrays and gives one number for each client, or one for all; docs/partitions.md has the
formulas and a worked picture. Clients' distributions are those of their training examples, and the pool is all of these
together: of a task, those of the clients that own it.

A statistic that has no meaning for a task is :class:`Undefined`, with the reason, and never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedmtl.data.federated import FederatedData
from fedmtl.tasks import Task


@dataclass(frozen=True)
class Undefined:
    """A statistic that has no meaning here, and why."""

    why: str


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """What is known of a task's examples on the clients that own it.

    Attributes
    ----------
    task
        The task.
    clients
        Its owners with training examples, int64 of shape [m].
    sizes
        Their training examples, shape [m].
    total_variation, jensen_shannon, effective_classes, wasserstein
        One number for each of these clients, shape [m], or the reason why there are none.
    pool_classes
        The effective number of classes of the pool, or why there is none.
    gini
        Imbalance of the sizes, or why there is none.
    """

    task: Task
    clients: np.ndarray
    sizes: np.ndarray
    total_variation: np.ndarray | Undefined
    jensen_shannon: np.ndarray | Undefined
    effective_classes: np.ndarray | Undefined
    pool_classes: float | Undefined
    wasserstein: np.ndarray | Undefined
    gini: float | Undefined

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why statistics are undefined, by their names."""
        return {name: value.why for name, value in vars(self).items() if isinstance(value, Undefined)}


def statistics_of(data: FederatedData) -> tuple[TaskStatistics, ...]:
    """The statistics of every task, over all clients that own it."""
    return tuple(_of_task(data, index) for index in range(len(data.tasks)))


def _of_task(data: FederatedData, index: int) -> TaskStatistics:
    task, owners = data.tasks[index], np.flatnonzero(data.owners[:, index])
    sizes = data.shards.sizes[owners]
    row = np.full(data.clients, -1)
    row[owners] = np.arange(len(owners))
    client = np.repeat(row, data.shards.sizes)  # of each training example; -1 where the task is not owned
    targets = data.train.targets[index].index_select(0, data.shards.indices).cpu().numpy()[client >= 0]
    client = client[client >= 0]
    no_classes, no_distances = Undefined("a regression has no classes"), Undefined("classes lie at no distances")
    known = (task, owners, sizes)
    if task.kind == "regression":
        distances = _if_several(owners) or wasserstein(targets, client, len(owners))
        return TaskStatistics(*known, no_classes, no_classes, no_classes, no_classes, distances, gini(sizes))
    counts = class_counts(targets.astype(np.int64), client, len(owners))
    alone = _if_several(owners)
    return TaskStatistics(
        *known,
        alone or total_variation(counts),
        alone or jensen_shannon(counts),
        effective_classes(counts),
        float(effective_classes(counts.sum(axis=0, keepdims=True))[0]),
        no_distances,
        gini(sizes),
    )


def _if_several(owners: np.ndarray) -> Undefined | None:
    return Undefined("its one client is the pool") if len(owners) == 1 else None


def class_counts(labels: np.ndarray, client: np.ndarray, clients: int) -> np.ndarray:
    """Examples of each class that occurs on each client, int64 of shape [clients, classes that occur].

    Parameters
    ----------
    labels, client
        The class and the client of each example, int64 of shape [n].
    clients
        How many clients there are.
    """
    found, place = np.unique(labels, return_inverse=True)
    flat = np.bincount(client * len(found) + place, minlength=clients * len(found))
    return flat.reshape(clients, len(found))


def total_variation(counts: np.ndarray) -> np.ndarray:
    """Each client's total variation distance to the pool, from 0 to 1; shape [clients].

    ``TV_i = 1/2 sum_c |p_i(c) - q(c)|``, p_i the client's distribution of classes and q the pool's. It is the earth
    mover's distance where moving any class to any other costs 1: the share of its examples that a client would have to
    exchange.

    Parameters
    ----------
    counts
        Examples of each class on each client, shape [clients, classes]; no client is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from fedmtl.partitions.statistics import total_variation
    >>> total_variation(np.array([[4, 0], [0, 4]])).tolist()
    [0.5, 0.5]
    """
    p, q = _distributions(counts)
    return np.asarray(np.abs(p - q).sum(axis=1) / 2)


def jensen_shannon(counts: np.ndarray) -> np.ndarray:
    """Each client's Jensen-Shannon divergence to the pool, in bits, from 0 to 1; shape [clients].

    ``JS_i = KL(p_i || m)/2 + KL(q || m)/2`` with ``m = (p_i + q)/2`` and the logarithm to the base 2 (Lin, "Divergence
    Measures Based on the Shannon Entropy", 1991). Its square root is a metric; this is not the root.

    Parameters
    ----------
    counts
        Examples of each class on each client, shape [clients, classes]; no client is empty.
    """
    p, q = _distributions(counts)
    m = (p + q) / 2
    # The entropy of the mixture less the mixture of the entropies, which rounding may leave below 0.
    return np.asarray(np.maximum(_entropy(m) - (_entropy(p) + _entropy(q)) / 2, 0.0) / np.log(2))


def effective_classes(counts: np.ndarray) -> np.ndarray:
    """Each client's effective number of classes, from 1 to the number of classes; shape [clients].

    ``exp(-sum_c p_i(c) ln p_i(c))``: so many equally frequent classes have the same entropy (the Hill number of order
    1; Hill, "Diversity and Evenness", 1973).

    Parameters
    ----------
    counts
        Examples of each class on each client, shape [clients, classes]; no client is empty.
    """
    return np.asarray(np.exp(_entropy(_distributions(counts)[0])))


def gini(sizes: np.ndarray) -> float | Undefined:
    """The Gini coefficient of sizes: 0 if all are equal, ``1 - 1/N`` if one of N has all.

    ``sum_ij |n_i - n_j| / (2 N^2 mean)``, half the mean difference of two clients' sizes over the mean size.

    Parameters
    ----------
    sizes
        Examples of each client, shape [clients].
    """
    if len(sizes) < 2:
        return Undefined("its one client has no other to be compared with")
    ascending = np.sort(sizes).astype(np.float64)
    rank = np.arange(1, len(sizes) + 1)
    return float(((2 * rank - len(sizes) - 1) * ascending).sum() / (len(sizes) * ascending.sum()))


def wasserstein(values: np.ndarray, client: np.ndarray, clients: int) -> np.ndarray | Undefined:
    """Each client's Wasserstein distance to the pool, in standard deviations of the pool; shape [clients].

    ``W_i = 1/s int_0^1 |Q_i(u) - Q(u)| du``, Q_i and Q the quantile functions of the client and of the pool, and s the
    pool's standard deviation: how far a value has to be moved on average, so that the client's distribution becomes the
    pool's. All clients together take one sort of all values.

    Parameters
    ----------
    values, client
        The target and the client of each example, shape [n].
    clients
        How many clients there are, none of them empty.
    """
    target = values.astype(np.float64)
    if target.min() == target.max():
        return Undefined("the target is constant, so that there is no deviation to measure in")
    target = (target - target.mean()) / target.std()
    pool, examples = np.sort(target), len(target)
    order = np.lexsort((target, client))
    mine, own = client[order], target[order]
    sizes = np.bincount(client, minlength=clients)
    # The j-th of a client's m values in order is its quantile function on the interval from (j-1)/m to j/m, ...
    rank = np.arange(examples) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    low, high = rank / sizes[mine], (rank + 1) / sizes[mine]
    # ... and from `cross` on the pool's is above it.
    cross = np.clip(np.searchsorted(pool, own, side="right") / examples, low, high)
    integral = np.concatenate([[0.0], np.cumsum(pool) / examples])
    at = [np.interp(u * examples, np.arange(examples + 1), integral) for u in (low, cross, high)]
    moved = own * (2 * cross - low - high) + at[0] + at[2] - 2 * at[1]
    return np.maximum(np.bincount(mine, weights=moved, minlength=clients), 0.0)


def _distributions(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each client's distribution of classes, and the pool's."""
    return counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()


def _entropy(p: np.ndarray) -> np.ndarray:
    """The entropy of each distribution, in nats."""
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1))
