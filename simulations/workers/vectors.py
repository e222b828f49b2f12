"""Flat vectors that several orders need, stored for other processes once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from fedmtl.protocol import TrainOrder


class SharedVectors:
    """References to the vectors of orders: each vector is stored when first sent, and let go with its last order.

    Parameters
    ----------
    put
        Stores an array and returns a reference to it; what is stored lives as long as the reference.
    least_bytes
        A smaller vector is not stored but goes along with every message, which costs less.
    """

    def __init__(self, put: Callable[[Any], Any], least_bytes: int) -> None:
        self._put = put
        self._least_bytes = least_bytes
        self._users: dict[int, int] = {}
        self._tensors: dict[int, Tensor] = {}
        self._references: dict[int, Any] = {}

    def __len__(self) -> int:
        """Vectors that some order needs."""
        return len(self._users)

    @property
    def stored(self) -> int:
        """Vectors that are stored now."""
        return len(self._references)

    def hold(self, order: TrainOrder) -> None:
        """An order will need its vectors."""
        for vector in _vectors(order):
            self._users[id(vector)] = self._users.get(id(vector), 0) + 1
            # A vector that is known by its identity must not vanish.
            self._tensors[id(vector)] = vector

    def release(self, order: TrainOrder) -> None:
        """An order needs its vectors no more."""
        for vector in _vectors(order):
            self._users[id(vector)] -= 1
            if self._users[id(vector)] == 0:
                del self._users[id(vector)], self._tensors[id(vector)]
                self._references.pop(id(vector), None)

    def argument(self, tensor: Tensor) -> Any:
        """What to send for a tensor: the reference to a large vector of an order, and an array for anything else."""
        array = tensor.detach().cpu().numpy()
        if id(tensor) not in self._users or array.nbytes < self._least_bytes:
            return array
        if id(tensor) not in self._references:
            self._references[id(tensor)] = self._put(array)
        return self._references[id(tensor)]


def _vectors(order: TrainOrder) -> Iterable[Tensor]:
    yield order.base.vector
    yield from order.vectors.values()
