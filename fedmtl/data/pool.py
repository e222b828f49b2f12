"""What a source returns: examples that no client owns yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedmtl.config_errors import did_you_mean
from fedmtl.data.federated import Examples
from fedmtl.errors import ConfigError
from fedmtl.tasks import Task


@dataclass(frozen=True, eq=False)
class Pool:
    """The examples of a source before they are spread over clients.

    Parameters
    ----------
    tasks
        The tasks, in the order of the target columns.
    train, test
        The examples to spread over the clients, and the server's test set.
    natural
        For each training example the number of the user, writer or device that it came from (int64, shape [n]), or None
        where the source knows no such thing.
    users
        What the data call these, by number; empty where they have no names.
    labels
        Columns to partition by: name and training labels (int64, shape [n]) of every classification, then of every
        binary task. Derived from the tasks, and kept when tasks are chosen: the split does not change with the tasks
        learned.
    values
        The targets of every regression by name (float32, shape [n]), derived and kept in the same way.
    features_of
        Where `train.features` has no columns, since reading them costs much: reads those of these examples (positions,
        ascending).
    """

    tasks: tuple[Task, ...]
    train: Examples
    test: Examples
    natural: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    features_of: Callable[[np.ndarray], Tensor] | None = None
    users: tuple[str, ...] = ()
    values: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels:
            object.__setattr__(self, "labels", self._label_columns())
        if not self.values:
            columns = zip(self.tasks, self.train.targets, strict=True)
            values = {t.name: target.numpy() for t, target in columns if t.kind == "regression"}
            object.__setattr__(self, "values", values)

    def _label_columns(self) -> dict[str, np.ndarray]:
        columns = list(zip(self.tasks, self.train.targets, strict=True))
        return {
            task.name: target.numpy().astype(np.int64, copy=False)
            for kind in ("classification", "binary")
            for task, target in columns
            if task.kind == kind
        }

    def names_of(self, parts: Sequence[np.ndarray]) -> tuple[str, ...]:
        """What the data call each client, where each has the examples of one user; else nothing.

        Parameters
        ----------
        parts
            For each client the positions of its examples.
        """
        if self.natural is None or not self.users or not all(map(len, parts)):
            return ()
        owners = [self.natural[part] for part in parts]
        one_each = all((own == own[0]).all() for own in owners)
        return tuple(self.users[own[0]] for own in owners) if one_each else ()

    def choose(self, names: Sequence[str]) -> Pool:
        """The same examples with these tasks, in this order.

        Raises
        ------
        ConfigError
            If no name is given, or one is unknown or given twice.
        """
        known = [task.name for task in self.tasks]
        if not names:
            raise ConfigError(f"tasks.names is empty; known: {', '.join(known)}")
        for position, name in enumerate(names):
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(f"tasks.names: {name!r} is not a task of the data{hint}; known: {', '.join(known)}")
            if name in names[:position]:
                raise ConfigError(f"tasks.names: {name!r} is given twice")
        at = [known.index(name) for name in names]
        return dataclasses.replace(
            self,
            tasks=tuple(self.tasks[i] for i in at),
            train=Examples(self.train.features, tuple(self.train.targets[i] for i in at)),
            test=Examples(self.test.features, tuple(self.test.targets[i] for i in at)),
        )
