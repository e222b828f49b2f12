"""What examples are skewed by: a task's classes, bins of a regression target, or combinations of several tasks'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.config_errors import did_you_mean
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError, DataError
from fedmtl.partitions.cutting import counted, labels_of

By = Annotated[
    str,
    Param("task whose labels are skewed, or the bins of its regression target; empty for the first classification"),
]
Bins = Annotated[int, Param("equal-sized bins that a regression target is cut into", ge=2)]


@dataclass(frozen=True, eq=False)
class Strata:
    """A column to share out by.

    Attributes
    ----------
    labels
        The stratum of each example, numbers from 0 of which all occur; int64 of shape [n].
    words
        How many there are and of what, for messages, such as ``"10 classes"``.
    """

    labels: np.ndarray
    words: str

    @property
    def count(self) -> int:
        """How many strata there are."""
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> np.ndarray:
        """Examples of each stratum, shape [count]."""
        return np.bincount(self.labels)


def strata_of(pool: Pool, by: str, bins: int) -> Strata:
    """The classes of a task, or the bins of a regression target; of the first task with labels if `by` is empty.

    Raises
    ------
    ConfigError
        If the task does not exist, or none is named and the data have no labels.
    DataError
        If the target has fewer different values than bins.
    """
    if by in pool.values:
        return Strata(quantile_bins(pool.values[by], bins, f"the target {by!r}"), f"{bins} bins of {by!r}")
    if by and by not in pool.labels:
        known = [*pool.labels, *pool.values]
        raise ConfigError(
            f"data.by = {by!r} is not a task of the data{did_you_mean(by, known)}; known: {', '.join(known)}"
        )
    labels, classes = labels_of(pool, by)
    return Strata(np.unique(labels, return_inverse=True)[1].astype(np.int64), counted(classes))


def joint_strata(pool: Pool, names: Sequence[str], bins: int) -> Strata:
    """The combinations of classes and bins of several tasks that occur; of all tasks if none is named.

    Raises
    ------
    ConfigError
        If a task does not exist, or is named twice.
    DataError
        If a target has fewer different values than bins.
    """
    known = [*pool.labels, *pool.values]
    for place, name in enumerate(names):
        if name not in known:
            raise ConfigError(
                f"data.by_tasks: {name!r} is not a task of the data{did_you_mean(name, known)}; known: "
                f"{', '.join(known)}"
            )
        if name in names[:place]:
            raise ConfigError(f"data.by_tasks: {name!r} is given twice")
    chosen = list(names) or known
    columns = np.stack([strata_of(pool, name, bins).labels for name in chosen], axis=1)
    found, labels = np.unique(columns, axis=0, return_inverse=True)
    return Strata(labels.reshape(-1).astype(np.int64), f"{len(found)} combinations of {', '.join(chosen)}")


def quantile_bins(values: np.ndarray, bins: int, what: str) -> np.ndarray:
    """The bin of each value, of bins of near-equal size in ascending order; int64 of shape [n].

    Equal values may fall into two neighbouring bins: they are told apart by their positions.

    Raises
    ------
    DataError
        If there are fewer different values than bins; `what` names them.
    """
    different = len(np.unique(values))
    if different < bins:
        raise DataError(
            f"data.bins = {bins}: {what} has {different} different value{'s' * (different != 1)} only; use fewer bins, "
            "at least 2, or partition by another task"
        )
    return ordinal_bins(values, bins)


def ordinal_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value by its rank alone, int64 of shape [n]; with fewer values than bins some stay empty."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values, method="ordinal") - 1) * bins // len(values), dtype=np.int64)
