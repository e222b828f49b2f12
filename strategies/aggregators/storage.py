"""Where a vector for every client is kept, for the methods that demand one."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from fedmtl.components import Param

StorageName = Literal["single", "half", "disk"]
Cache = Annotated[
    StorageName, Param("where a vector for each client is kept: in memory, there at half the bytes, or in a file")
]


class Kept(NamedTuple):
    """A vector of shape [P], single precision: ``base + update``, either of which may be missing.

    Nobody writes to the tensors any more. Many clients may have the same base.

    Examples
    --------
    The update of a model, which many clients may have started from, and the model:

    >>> import torch
    >>> from strategies.aggregators.storage import Kept
    >>> Kept(update=torch.tensor([0.5, 0.0]), base=torch.tensor([1.0, 2.0])).whole
    tensor([1.5000, 2.0000])
    """

    update: Tensor | None
    base: Tensor | None = None

    @property
    def whole(self) -> Tensor:
        """The sum; not to be written to."""
        if self.update is None:
            assert self.base is not None, "a vector has a base or an update"
            return self.base
        return self.update if self.base is None else self.base + self.update


class Storage(ABC):
    """Keeps one vector of shape [P] for each of some clients."""

    @abstractmethod
    def put(self, client: int, vector: Kept) -> Kept:
        """Keep this vector; returns what is kept."""

    @abstractmethod
    def get(self, client: int) -> Kept | None:
        """What is kept; None if nothing is."""

    @abstractmethod
    def clients(self) -> Collection[int]:
        """The clients for which a vector is kept, in the order in which they came."""

    def state_dict(self) -> dict[str, Any]:
        """The clients, and the vector of each."""
        clients = list(self.clients())
        return {"clients": clients, "vectors": [self.get(client) for client in clients]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, into an empty storage."""
        for client, vector in zip(state["clients"], state["vectors"], strict=True):
            self.put(int(client), Kept(*vector))


class InMemory(Storage):
    """The very tensors that were given, which costs no time, and no memory while others have them as well.

    Examples
    --------
    Nothing is copied:

    >>> import torch
    >>> from strategies.aggregators.storage import InMemory, Kept
    >>> storage, vector = InMemory(), torch.tensor([1.0, 2.0])
    >>> kept = storage.put(7, Kept(vector))
    >>> storage.get(7).update is vector, storage.get(8), list(storage.clients())
    (True, None, [7])
    """

    def __init__(self) -> None:
        self._vectors: dict[int, Kept] = {}

    def put(self, client: int, vector: Kept) -> Kept:
        """Keep the very tensors."""
        self._vectors[client] = vector
        return vector

    def get(self, client: int) -> Kept | None:
        """The very tensors that were given; None if none were."""
        return self._vectors.get(client)

    def clients(self) -> Collection[int]:
        """The clients for which a vector is kept."""
        return self._vectors.keys()


class HalfPrecision(Storage):
    """Vectors in memory at 2 bytes an entry, to 3 digits, and to at most 65504 in magnitude.

    Examples
    --------
    Three digits are left, and no numbers beyond 65504:

    >>> import torch
    >>> from strategies.aggregators.storage import HalfPrecision, Kept
    >>> storage = HalfPrecision()
    >>> storage.put(7, Kept(torch.tensor([1.0001, 1e6]))).whole
    tensor([1.0000e+00, 6.5504e+04])
    """

    def __init__(self) -> None:
        self._vectors: dict[int, Tensor] = {}

    def put(self, client: int, vector: Kept) -> Kept:
        """Keep the sum, rounded."""
        largest = torch.finfo(torch.float16).max
        rounded = self._vectors[client] = vector.whole.clamp(-largest, largest).half()
        return Kept(None, rounded.float())

    def get(self, client: int) -> Kept | None:
        """The rounded sum, as a base."""
        return Kept(None, self._vectors[client].float()) if client in self._vectors else None

    def clients(self) -> Collection[int]:
        """The clients for which a vector is kept."""
        return self._vectors.keys()


class OnDisk(Storage):
    """Vectors in a temporary file that vanishes with the process; only those in use are in memory.

    Examples
    --------
    The sum of base and update is written, and read again when it is asked for:

    >>> import torch
    >>> from strategies.aggregators.storage import Kept, OnDisk
    >>> storage = OnDisk()
    >>> kept = storage.put(7, Kept(update=torch.tensor([0.5, 0.0]), base=torch.tensor([1.0, 2.0])))
    >>> storage.get(7)
    Kept(update=None, base=tensor([1.5000, 2.0000]))
    """

    def __init__(self) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(prefix="fedmtl-"))  # noqa: SIM115 - lives as long as self
        self._places: dict[int, int] = {}
        self._size = 0

    def put(self, client: int, vector: Kept) -> Kept:
        """Write the sum, over the client's last one."""
        whole = vector.whole.contiguous()
        self._size = whole.numel()
        self._file.seek(4 * self._size * self._places.setdefault(client, len(self._places)))
        self._file.write(whole.numpy().tobytes())
        return Kept(None, whole)

    def get(self, client: int) -> Kept | None:
        """The sum, as a base."""
        if client not in self._places:
            return None
        self._file.seek(4 * self._size * self._places[client])
        return Kept(None, torch.from_numpy(np.frombuffer(bytearray(self._file.read(4 * self._size)), dtype=np.float32)))

    def clients(self) -> Collection[int]:
        """The clients for which a vector is kept."""
        return self._places.keys()


def new_storage(name: StorageName) -> Storage:
    """An empty storage of the kind that an option names."""
    kinds: dict[StorageName, type[Storage]] = {"single": InMemory, "half": HalfPrecision, "disk": OnDisk}
    return kinds[name]()
