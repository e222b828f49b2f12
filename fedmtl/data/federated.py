"""Data spread over clients: pooled tensors, and a shard of indices for each client."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmtl.config_errors import did_you_mean
from fedmtl.data.shift import Shift
from fedmtl.errors import ConfigError, DataError
from fedmtl.tasks import Task


@dataclass(frozen=True, eq=False)
class Examples:
    """Features, shape [n, ...], and for each task a target column, shape [n]."""

    features: Tensor
    targets: tuple[Tensor, ...]

    def __len__(self) -> int:
        return self.features.shape[0]

    def take(self, index: Tensor) -> Examples:
        """The examples at these positions, in this order."""
        return Examples(self.features.index_select(0, index), tuple(t.index_select(0, index) for t in self.targets))

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device."""
        return Examples(self.features.to(device), tuple(t.to(device) for t in self.targets))


class Shards:
    """A list of index arrays, held as one array and its cuts: 100,000 clients cost two arrays, not 100,000.

    Parameters
    ----------
    parts
        For each client the positions of its examples, int64.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        sizes = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
        self._cut(sizes)
        joined = np.concatenate(parts) if len(parts) else np.empty(0, dtype=np.int64)
        self.indices = torch.from_numpy(np.ascontiguousarray(joined, dtype=np.int64))

    @classmethod
    def of_sizes(cls, indices: np.ndarray, sizes: np.ndarray) -> Shards:
        """Shards of these sizes, cut in turn from one array of positions."""
        shards = cls([indices])
        shards._cut(sizes)
        return shards

    def _cut(self, sizes: np.ndarray) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        # A shard is asked for with every order, and NumPy's own integers are slow to slice with.
        self._cuts: list[int] = self.offsets.tolist()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, client: int) -> Tensor:
        return self.indices[self._cuts[client] : self._cuts[client + 1]]

    def size(self, client: int) -> int:
        """Examples of one client."""
        return self._cuts[client + 1] - self._cuts[client]

    @property
    def sizes(self) -> np.ndarray:
        """Examples of each client."""
        return np.diff(self.offsets)


class FederatedData:
    """Everything that clients train on and the server judges by.

    Parameters
    ----------
    tasks
        The tasks, in the order of the target columns.
    train, test
        All clients' examples pooled, and the server's test set.
    shards, validation
        For each client the positions in `train` that it trains on, and those it holds out and never trains on.
    owners
        bool [clients, tasks]: which client owns which task.
    idle
        Whether there may be clients that own no task; these are never asked.
    client_names
        What the data call the clients; empty where they have no names.
    shift
        The shift that the clients' features have been given, if any.

    Raises
    ------
    DataError
        If a shard is empty, a client owns no task, a task has no owner, or a target is out of range.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        train: Examples,
        test: Examples,
        shards: Shards,
        validation: Shards,
        owners: np.ndarray,
        *,
        idle: bool = False,
        client_names: Sequence[str] = (),
        shift: Shift | None = None,
    ) -> None:
        self.tasks = tuple(tasks)
        self.train = train
        self.test = test
        self.shards = shards
        self.validation = validation
        self.owners = owners
        self.idle = idle
        self.client_names = tuple(client_names)
        self.shift = shift
        self._check()
        self._all_tasks = tuple(range(len(self.tasks)))
        self._everyone_owns_all = bool(owners.all())

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.shards)

    @property
    def active(self) -> Sequence[int]:
        """The clients that own a task, in order."""
        owning = self.owners.any(axis=1)
        return range(self.clients) if owning.all() else np.flatnonzero(owning).tolist()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example's features."""
        return tuple(self.train.features.shape[1:])

    def tasks_of(self, client: int) -> tuple[int, ...]:
        """Indices of the tasks that a client owns."""
        if self._everyone_owns_all:
            return self._all_tasks
        return tuple(int(task) for task in np.flatnonzero(self.owners[client]))

    def examples_of(self, client: int) -> Tensor:
        """The positions of all examples of a client, held-out ones included, ascending."""
        return torch.cat([self.shards[client], self.validation[client]]).sort().values

    def shifted(self, shift: Shift) -> FederatedData:
        """The same data as each client sees them: its own examples' features shifted, those of nobody and tests not.

        Raises
        ------
        ConfigError
            If these features cannot be shifted so.
        """
        features = self.train.features.clone()
        for client in range(self.clients):
            mine = self.examples_of(client)
            if len(mine):  # a node that has its own examples alone knows nobody else's
                features[mine] = shift.apply(client, features[mine])
        part = copy.copy(self)
        part.train, part.shift = Examples(features, self.train.targets), shift
        return part

    def of(self, client: int, features_of: Callable[[np.ndarray], Tensor]) -> FederatedData:
        """What one client needs: its own examples, with the features that are read here, and nobody else's."""
        mine = self.examples_of(client)
        part = copy.copy(self)
        targets = tuple(target.index_select(0, mine) for target in self.train.targets)
        part.train = Examples(features_of(mine.numpy()), targets)
        part.test = self.test.take(mine[:0])
        part.shards, part.validation = (
            Shards(
                [
                    torch.searchsorted(mine, shards[client]).numpy() if other == client else np.empty(0, np.int64)
                    for other in range(self.clients)
                ]
            )
            for shards in (self.shards, self.validation)
        )
        return part

    def only(self, name: str) -> FederatedData:
        """The same data and clients with one task: clients that do not own it keep their numbers and sit idle.

        Raises
        ------
        ConfigError
            If there is no such task.
        """
        names = [task.name for task in self.tasks]
        if name not in names:
            raise ConfigError(
                f"tasks.only = {name!r} is not a task of this experiment{did_you_mean(name, names)}; known: "
                f"{', '.join(names)}"
            )
        at = names.index(name)
        train, test = (Examples(part.features, (part.targets[at],)) for part in (self.train, self.test))
        owners = self.owners[:, [at]]
        return FederatedData(
            *((self.tasks[at],), train, test, self.shards, self.validation, owners),
            idle=True,
            client_names=self.client_names,
            shift=self.shift,
        )

    def without_tiny(self, examples: int) -> FederatedData:
        """The same data and clients, of which those with fewer training examples than that sit idle.

        Raises
        ------
        DataError
            If a task is left without an owner.
        """
        owners = self.owners & (self.shards.sizes >= examples)[:, None]
        if (lost := np.flatnonzero(~owners.any(axis=0))).size:
            raise DataError(
                f"no client that owns task {self.tasks[lost[0]].name!r} has {examples} training examples, a batch: "
                "set training.tiny_clients = 'keep_last_batch', or lower training.batch_size"
            )
        return FederatedData(
            *(self.tasks, self.train, self.test, self.shards, self.validation, owners),
            idle=True,
            client_names=self.client_names,
            shift=self.shift,
        )

    def _check(self) -> None:
        if (empty := np.flatnonzero(self.shards.sizes == 0)).size:
            raise DataError(
                f"client {empty[0]} has no training examples ({empty.size} of {len(self.shards)} clients are empty): "
                "use fewer clients (data.clients) or a less skewed partition"
            )
        if self.owners.shape != (len(self.shards), len(self.tasks)):
            raise DataError(f"owners has shape {self.owners.shape}, expected {(len(self.shards), len(self.tasks))}")
        if not self.idle and (idle := np.flatnonzero(~self.owners.any(axis=1))).size:
            raise DataError(f"client {idle[0]} owns no task")
        if (orphans := np.flatnonzero(~self.owners.any(axis=0))).size:
            raise DataError(f"task {self.tasks[orphans[0]].name!r} has no owner")
        for examples, part in ((self.train, "training"), (self.test, "test")):
            if len(examples.targets) != len(self.tasks):
                raise DataError(
                    f"the {part} data have {len(examples.targets)} target columns for {len(self.tasks)} tasks"
                )
            for task, target in zip(self.tasks, examples.targets, strict=True):
                _check_target(task, target, len(examples), part)


def _check_target(task: Task, target: Tensor, examples: int, part: str) -> None:
    where = f"task {task.name!r}, {part} data"
    if target.shape != (examples,):
        raise DataError(f"{where}: targets have shape {tuple(target.shape)}, expected ({examples},)")
    if examples == 0:
        raise DataError(f"{where}: no examples")
    low, high = target.min().item(), target.max().item()
    if task.kind == "classification":
        if target.dtype != torch.int64 or low < 0 or high >= task.outputs:
            raise DataError(
                f"{where}: labels must be integers in 0..{task.outputs - 1}, found {target.dtype} in {low}..{high}"
            )
    elif not target.is_floating_point() or not torch.isfinite(target).all():
        raise DataError(f"{where}: targets must be finite floating-point numbers")
    elif task.kind == "binary" and not bool(((target == 0) | (target == 1)).all()):
        raise DataError(f"{where}: targets must be 0 or 1, found values in {low}..{high}")
