"""What a compressor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedmtl.parameters import ParameterLayout


class CompressionError(Exception):
    """What arrived cannot be what a compressor made; the message says why."""


class Compressor(ABC):
    """Turns a client's update into fewer numbers and back, nearly.

    Client and server draw the same random numbers from the seed of the order. A compressor keeps nothing between calls
    but what it could compute again.

    Attributes
    ----------
    name
        In the table of compressors.
    memory
        Which share of what an update lost the client adds to its next one; with 0 it is lost.
    """

    name: str
    memory: float = 0.0

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The options, as an order carries them to a client."""

    @abstractmethod
    def compress(self, delta: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """What goes up in place of an update, float32, from ``delta`` of shape [P]."""

    @abstractmethod
    def restore(self, sent: Tensor, layout: ParameterLayout, seed: int) -> Tensor:
        """The update that the server works with, shape [P].

        Raises
        ------
        CompressionError
            If `compress` cannot have made this.
        """

    @abstractmethod
    def most_entries(self, layout: ParameterLayout) -> int:
        """The length of the longest vector that `compress` may return."""
