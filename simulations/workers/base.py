"""Workers: where orders of a simulation are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedmtl.protocol import JobKey, TrainOrder, Update


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An order that was sent, what its client observed on receiving it, and the virtual time its update arrives at."""

    order: TrainOrder
    observed: Mapping[str, float | Tensor]
    arrival: float


class Workers(ABC):
    """Trains orders, in any sequence and in any place; the result of an order depends on the order alone."""

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs that may be asked for later. Jobs that are submitted together belong to one decision."""

    @abstractmethod
    def result(self, key: JobKey) -> Update:
        """The update of a submitted job, trained now if it was not yet; it can be asked for once."""

    @abstractmethod
    def discard(self, key: JobKey) -> None:
        """A submitted job will never be asked for."""

    def close(self) -> None:
        """Let go of processes and memory."""
        return None
