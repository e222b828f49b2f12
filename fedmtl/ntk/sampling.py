"""Which examples kernels are taken at, and to what groups their clients belong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmtl.data.federated import FederatedData
from fedmtl.evaluation import halves
from fedmtl.partitions.statistics import total_variation
from fedmtl.randomness import numpy_generator


@dataclass(frozen=True, eq=False)
class Sample:
    """Training examples of clients.

    Attributes
    ----------
    positions
        In the pooled training data, int64, shape [n].
    clients
        The client that each belongs to, shape [n].
    """

    positions: Tensor
    clients: np.ndarray

    def members(self, client: int) -> Tensor:
        """Places in the sample of a client's examples."""
        return torch.from_numpy(np.flatnonzero(self.clients == client))


def pooled_sample(data: FederatedData, examples: int, seed: int) -> Sample:
    """So many examples of all clients' together (all if there are no more), drawn by the seed alone."""
    owner = np.repeat(np.arange(data.clients), data.shards.sizes)
    chosen = numpy_generator(seed, "ntk sample").permutation(len(owner))[:examples]
    chosen.sort()
    return Sample(data.shards.indices[torch.from_numpy(chosen)], owner[chosen])


def client_sample(data: FederatedData, clients: np.ndarray, examples: int, seed: int) -> Sample:
    """Up to so many examples of each of these clients, in the clients' order."""
    positions, owner = [], []
    for client in clients.tolist():
        shard = data.shards[client]
        chosen = numpy_generator(seed, "ntk client sample", client).permutation(len(shard))[:examples]
        positions.append(shard[torch.from_numpy(np.sort(chosen))])
        owner.append(np.full(len(chosen), client))
    return Sample(torch.cat(positions), np.concatenate(owner))


def spread_clients(data: FederatedData, seconds: np.ndarray | None, count: int) -> np.ndarray:
    """So many clients, evenly chosen from the fastest to the slowest (by number where speeds are unknown or equal)."""
    order = np.arange(data.clients) if seconds is None else np.argsort(seconds, kind="stable")
    places = np.unique(np.linspace(0, data.clients - 1, min(count, data.clients)).round().astype(np.int64))
    return order[places]


def speed_halves(seconds: np.ndarray) -> Mapping[str, np.ndarray]:
    """The faster and the slower half of the clients; nothing where all are equally fast."""
    names = {"fast": "faster half of the clients", "slow": "slower half of the clients"}
    return {names[name]: half for name, half in halves(seconds, np.ones(len(seconds), dtype=bool)).items()}


def skew_halves(data: FederatedData) -> Mapping[str, np.ndarray]:
    """The half of the clients whose mixture of classes is nearer to that of all, and the other half.

    The distance is the total variation between mixtures of the first task with classes; without such a task, or where
    all clients have the same mixture, there are no halves.
    """
    kinds = [task.kind for task in data.tasks]
    index = next((kinds.index(kind) for kind in ("classification", "binary") if kind in kinds), None)
    if index is None:
        return {}
    labels = data.train.targets[index].index_select(0, data.shards.indices).long().cpu().numpy()
    owner = np.repeat(np.arange(data.clients), data.shards.sizes)
    classes = int(labels.max()) + 1
    counts = np.bincount(owner * classes + labels, minlength=data.clients * classes).reshape(data.clients, classes)
    distance = total_variation(counts)
    if np.ptp(distance) == 0:
        return {}
    order = np.argsort(distance, kind="stable")
    half = len(order) // 2
    return {"less skewed half of the clients": order[:half], "more skewed half of the clients": order[half:]}
