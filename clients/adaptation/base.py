"""The client's half of a policy.

It has three moments. `observe` and `conclude` run where the client's own state lives: on the node in a deployment,
beside the event heap in a simulation. `plan` runs where the training does, which may be another process: it sees only
the order and what `observe` returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fedmtl.protocol import TrainOrder, TrainSettings, Update

ClientState = dict[str, float | Tensor]
"""What a client keeps between its jobs: numbers, and flat vectors."""

Observed = Mapping[str, float | Tensor]
"""What a client noticed on receiving an order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a client will do a job, and what it tells the server about that.

    Attributes
    ----------
    settings
        How to train.
    client_type, feedback, similarity
        For the update.
    correction
        A constant flat vector that is added to every step's gradient, shape [P], or None.
    """

    settings: TrainSettings
    client_type: str = ""
    feedback: bool = False
    similarity: float | None = None
    correction: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Accuracy of the received model on a client's held-out examples, class by class.

    Attributes
    ----------
    correct, examples
        Right answers and examples of each class that occurs, in the order of the class numbers.
    """

    correct: tuple[int, ...]
    examples: tuple[int, ...]


Probe = Callable[[], ClassAccuracy]
"""Evaluates the received model on the client's held-out examples when called (only then)."""


class Adaptation(ABC):
    """The client's half of a policy; it keeps no state of its own."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """What the client notices on receiving an order; may take from its state what it needs no more."""
        return {}

    @abstractmethod
    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """How to do the job."""

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """The job is done: keep in the state what later jobs need."""
        return None
