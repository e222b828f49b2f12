"""What partitions share: an owner per example, cuts by shares, and a least number of examples."""

from __future__ import annotations

import numpy as np

from fedmtl.config_errors import did_you_mean
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError, DataError

UNUSED = -1


def labels_of(pool: Pool, by: str) -> tuple[np.ndarray, int]:
    """The labels to partition by, and the number of classes that occur: a label may stand for no example.

    Parameters
    ----------
    pool
        The examples.
    by
        Name of a classification or binary task, or empty for the first one.

    Raises
    ------
    ConfigError
        If the task does not exist, or the data have no labels.
    """
    if not pool.labels:
        raise ConfigError(
            "data.partition: these data have no classification or binary task to partition by; use 'iid', or name a "
            "regression in data.by with 'dirichlet', 'dirichlet-equal', 'extended-dirichlet' or 'pathological-equal'"
        )
    name = by or next(iter(pool.labels))
    if name not in pool.labels:
        known = ", ".join(pool.labels)
        raise ConfigError(f"data.by = {by!r} is not a task with labels{did_you_mean(by, pool.labels)}; known: {known}")
    labels = pool.labels[name]
    return labels, len(np.unique(labels))


def counted(classes: int) -> str:
    """So many classes, in words."""
    return f"{classes} class{'es' * (classes != 1)}"


def check_enough(examples: int, clients: int, minimum: int = 1) -> None:
    """Raise a DataError if there are too few examples for every client to have its least number."""
    if examples < clients * minimum:
        raise DataError(
            f"data.clients = {clients}: at least {minimum} training example{'s' * (minimum > 1)} per client would take "
            f"{clients * minimum}, the data have {examples}; use at most {examples // minimum} clients"
            + (" or a smaller data.min_examples" if minimum > 1 else "")
        )


def cut_by_shares(count: int, shares: np.ndarray) -> np.ndarray:
    """Cut 0..count-1 into consecutive runs in proportion to `shares`.

    Parameters
    ----------
    count
        How many things to cut.
    shares
        The share of each receiver, summing to 1, shape [receivers].

    Returns
    -------
    numpy.ndarray
        The receiver of each thing, int64 of shape [count]; cumulative shares are truncated to whole things.
    """
    edges = (np.cumsum(shares) * count).astype(np.int64)[:-1]
    return np.searchsorted(edges, np.arange(count), side="right")


def at_least(owner: np.ndarray, clients: int, minimum: int, rng: np.random.Generator) -> np.ndarray:
    """Fill up every client that has fewer than `minimum` examples with random ones of the largest clients.

    The largest clients are cut down to a common size, just far enough to give what is missing; all others keep what
    they have. Where nothing is missing nothing is drawn.

    Parameters
    ----------
    owner
        The client of each example, or `UNUSED`; int64 of shape [n].
    clients, minimum
        Number of clients, and the least number of examples of each.
    rng
        Decides which examples move, and to whom.

    Raises
    ------
    DataError
        If there are too few examples.
    """
    used = np.flatnonzero(owner != UNUSED)
    check_enough(len(used), clients, minimum)
    sizes = np.bincount(owner[used], minlength=clients)
    missing = np.maximum(minimum - sizes, 0)
    if not missing.any():
        return owner
    kept = _level(sizes, int(missing.sum()))
    order = used[np.lexsort((rng.random(len(used)), owner[used]))]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    moved = order[rank >= kept[owner[order]]]
    filled = owner.copy()
    filled[moved] = rng.permutation(np.repeat(np.arange(clients), missing))
    return filled


def _level(sizes: np.ndarray, taken: int) -> np.ndarray:
    """What each client keeps when the largest are cut down to a common size that frees `taken` examples."""
    low, high = 0, int(sizes.max())
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.maximum(sizes - middle, 0).sum() >= taken else (low, middle)
    kept = np.minimum(sizes, low)
    spare = int((sizes - kept).sum()) - taken
    kept[np.flatnonzero(sizes > low)[:spare]] += 1
    return np.asarray(kept)


def parts_of(owner: np.ndarray, clients: int) -> list[np.ndarray]:
    """For each client the positions of its examples, ascending."""
    order = np.argsort(owner, kind="stable")
    order = order[np.count_nonzero(owner == UNUSED) :]
    ends = np.cumsum(np.bincount(owner[owner != UNUSED], minlength=clients)).tolist()
    return [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
