"""A vector for every client, for the methods that demand it, and the mean over all clients at no cost per client."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout

StorageName = Literal["single", "half", "disk"]


class Storage(ABC):
    """Keeps a copy of one vector of shape [P] for each of some clients."""

    @abstractmethod
    def put(self, client: int, vector: Tensor) -> None:
        """Keep a copy of this vector."""

    @abstractmethod
    def get(self, client: int) -> Tensor | None:
        """What is kept, in single precision; None if nothing is. Not to be written to."""

    @abstractmethod
    def clients(self) -> Sequence[int]:
        """The clients for which a vector is kept."""

    def state_dict(self) -> dict[str, Any]:
        """Clients and vectors."""
        clients = list(self.clients())
        return {"clients": clients, "vectors": [self.get(client) for client in clients]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, into an empty storage."""
        for client, vector in zip(state["clients"], state["vectors"], strict=True):
            self.put(int(client), vector)


class InMemory(Storage):
    """Vectors in memory.

    Parameters
    ----------
    half
        In half precision: 2 bytes an entry, to 3 digits, and to at most 65504 in magnitude.
    """

    def __init__(self, *, half: bool = False) -> None:
        self._half = half
        self._vectors: dict[int, Tensor] = {}

    def put(self, client: int, vector: Tensor) -> None:
        """Keep a copy."""
        if self._half:
            largest = torch.finfo(torch.float16).max
            self._vectors[client] = vector.clamp(-largest, largest).half()
        else:
            self._vectors[client] = vector.clone()

    def get(self, client: int) -> Tensor | None:
        """What is kept."""
        vector = self._vectors.get(client)
        return None if vector is None else vector.float()

    def clients(self) -> Sequence[int]:
        """In the order in which they came."""
        return list(self._vectors)


class OnDisk(Storage):
    """Vectors in a temporary file that vanishes with the process; only those in use are in memory."""

    def __init__(self) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(prefix="fedmtl-"))  # noqa: SIM115 - lives as long as self
        self._places: dict[int, int] = {}
        self._size = 0

    def put(self, client: int, vector: Tensor) -> None:
        """Write it, over the client's last one."""
        self._size = vector.numel()
        self._file.seek(4 * self._size * self._places.setdefault(client, len(self._places)))
        self._file.write(vector.contiguous().numpy().tobytes())

    def get(self, client: int) -> Tensor | None:
        """Read it."""
        if client not in self._places:
            return None
        self._file.seek(4 * self._size * self._places[client])
        return torch.from_numpy(np.frombuffer(bytearray(self._file.read(4 * self._size)), dtype=np.float32))

    def clients(self) -> Sequence[int]:
        """In the order in which they came."""
        return list(self._places)


def new_storage(name: StorageName) -> Storage:
    """An empty storage of that kind."""
    return OnDisk() if name == "disk" else InMemory(half=name == "half")


class ClientVectors:
    """One vector for each client, and their weighted mean, kept up to date at the cost of one vector per change.

    The mean is taken slice by slice: a head's over the clients that own its task. A client that has not reported yet
    has the start vector (or what it was given since), the mean weight of those that have, and counts as an owner of
    everything.

    Parameters
    ----------
    storage
        Where the vectors are.
    layout
        Their layout.
    start
        What every client has at first, shape [P].
    """

    def __init__(self, storage: Storage, layout: ParameterLayout, start: Tensor) -> None:
        self._storage = storage
        self._layout = layout
        self._start = start
        # In double precision, for it is changed again and again and never formed anew.
        self._reported = torch.zeros_like(start, dtype=torch.float64)  # sum of weight times vector
        self._silent = torch.zeros_like(self._reported)  # sum of the vectors given to clients that did not report
        self._given = 0  # how many those are
        self._shares: dict[int, tuple[float, tuple[int, ...]]] = {}  # client -> weight and tasks
        self._weight = 0.0
        self._owners = [0.0] * len(layout.heads)  # sum of the weights of a head's owners

    def get(self, client: int) -> Tensor:
        """The client's vector, shape [P]."""
        vector = self._storage.get(client)
        return self._start if vector is None else vector

    def put(self, client: int, vector: Tensor) -> None:
        """Change the client's vector; its weight and tasks stay what they are."""
        self._remove(client)
        self._insert(client, vector)

    def report(self, client: int, vector: Tensor, weight: float, tasks: tuple[int, ...]) -> None:
        """Change the client's vector, its weight (positive) and its tasks."""
        self._remove(client)
        self._count(client, -1.0)
        self._shares[client] = (weight, tasks)
        self._count(client, 1.0)
        self._insert(client, vector)

    def mean(self, clients: int, current: Tensor) -> Tensor:
        """The mean over so many clients, shape [P]; a slice that nobody has is the current model's."""
        silent, weight = clients - len(self._shares), self._typical
        total = torch.add(self._reported, self._silent, alpha=weight)
        total.add_(self._start, alpha=weight * (silent - self._given))
        result = current.clone()
        owners = [self._weight, *self._owners, self._weight]
        for part, mass in zip(self._parts, owners, strict=True):
            if (whole := mass + weight * silent) > 0.0:
                result[part] = total[part] / whole
        return result

    def weight(self, clients: int) -> float:
        """The sum of the weights of so many clients."""
        return self._weight + self._typical * (clients - len(self._shares))

    @property
    def _typical(self) -> float:
        """The weight of a client that has not reported."""
        return self._weight / len(self._shares) if self._shares else 1.0

    @property
    def _parts(self) -> list[slice]:
        return [self._layout.shared, *self._layout.heads, self._layout.buffers]

    def _insert(self, client: int, vector: Tensor) -> None:
        self._storage.put(client, vector)
        self._change(client, 1.0)

    def _remove(self, client: int) -> None:
        if self._storage.get(client) is not None:
            self._change(client, -1.0)

    def _change(self, client: int, sign: float) -> None:
        """Add or subtract what is kept for the client, as it is kept."""
        vector = self.get(client)
        if client not in self._shares:
            self._silent.add_(vector, alpha=sign)
            self._given += int(sign)
            return
        weight, tasks = self._shares[client]
        if len(tasks) == len(self._layout.heads):
            self._reported.add_(vector, alpha=sign * weight)
            return
        for part in (self._layout.shared, *(self._layout.heads[task] for task in tasks), self._layout.buffers):
            self._reported[part].add_(vector[part], alpha=sign * weight)

    def _count(self, client: int, sign: float) -> None:
        weight, tasks = self._shares.get(client, (0.0, ()))
        self._weight += sign * weight
        for task in tasks:
            self._owners[task] += sign * weight

    def state_dict(self) -> dict[str, Any]:
        """Vectors, weights and sums."""
        return {
            "storage": self._storage.state_dict(),
            "start": self._start,
            "reported": self._reported.clone(),
            "silent": self._silent.clone(),
            "given": self._given,
            "shares": [[client, weight, list(tasks)] for client, (weight, tasks) in self._shares.items()],
            "weight": self._weight,
            "owners": list(self._owners),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, into one that is new."""
        self._storage.load_state_dict(state["storage"])
        self._start = state["start"]
        self._reported, self._silent = state["reported"].clone(), state["silent"].clone()
        self._given = int(state["given"])
        self._shares = {int(c): (float(w), tuple(map(int, tasks))) for c, w, tasks in state["shares"]}
        self._weight = float(state["weight"])
        self._owners = [float(weight) for weight in state["owners"]]
