"""The client's half of a policy: what all halves have in common.

A half has four moments. `observe` and `conclude` run where the client's own state lives: on the node in a deployment,
beside the event heap in a simulation. `plan` and `report` run where the training does, which may be another process:
before it and after it, they see only the order, what `observe` returned, and what the training made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from clients.policies.step_rule import StepRule
from fedmtl.balancing.passes import NO_PASSES, Passes
from fedmtl.protocol import TrainOrder, TrainSettings, Update

ClientState = dict[str, float | Tensor]
"""What a client keeps between its jobs: numbers, and flat vectors."""

Observed = Mapping[str, float | Tensor]
"""What a client noticed on receiving an order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a client will do a job, and what it says of that to the server.

    Attributes
    ----------
    settings
        How to train.
    terms
        What is known before the training and goes up with the update, for :attr:`Update.terms`.
    correction
        A constant flat vector that is added to every step's gradient, shape [P], or None.
    step_rule
        What the client does otherwise than plain descent, or None.
    start
        The vector to start from in place of the order's, shape [P], or None; the update's delta is still taken
        against the order's.
    """

    settings: TrainSettings
    terms: Mapping[str, float] = field(default_factory=dict)
    correction: Tensor | None = None
    step_rule: StepRule | None = None
    start: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What a client sends up after the training, for :attr:`Update.terms` and :attr:`Update.vectors`.

    Attributes
    ----------
    terms
        Scalars, beside the plan's.
    vectors
        Flat vectors, on the CPU.
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Accuracy of the received model on some of a client's examples, class by class.

    Attributes
    ----------
    correct, examples
        Right answers and examples of each class that occurs, in the order of the class numbers.
    """

    correct: tuple[int, ...]
    examples: tuple[int, ...]


Choice = Callable[[Tensor], Tensor]
"""Chooses among examples by their labels, shape [n]; returns bool, shape [n]."""


class Probe(Protocol):
    """Evaluates the received model when called (only then)."""

    def __call__(self, chosen: Choice | None = None) -> ClassAccuracy:
        """Accuracy on the client's held-out examples, or on those chosen among the ones that it trains on."""
        ...


class ClientHalf(ABC):
    """The client's half of a policy; it keeps no state of its own."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """What the client notices on receiving an order; may take from its state what it needs no more."""
        return {}

    @abstractmethod
    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """How to do the job."""

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report | None:
        """What to send up besides the update, once the training has ended without failure; None for nothing.

        Parameters
        ----------
        order, observed, plan
            The job.
        update
            All else that will be sent.
        losses
            The owned tasks' losses of each step, shape [tasks] each.
        """
        return None

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """Bytes that go up besides the model and its version: 4 per number and per entry of a vector, 1 per flag.

        It is asked when the order is sent, since the time of the transfer depends on it, and must be what `plan` and
        `report` will then send.
        """
        return 0

    def task_bytes_up(self, order: TrainOrder, tasks: int) -> int:
        """Further such bytes, which depend on how many tasks the client owns."""
        return 0

    def gradient_calls(self, order: TrainOrder, steps: int) -> int:
        """How often a job of so many local steps asks the balancer for gradients, whose passes that one declares."""
        return steps

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """What the job computes beside that: what a simulation's clock charges.

        It is asked when the order is sent, before anything was observed.

        Parameters
        ----------
        order
            The order.
        steps
            Local steps of the job.
        examples, tasks
            Training examples of the client, and how many tasks it owns.
        """
        return NO_PASSES

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """The job is done: keep in the state what later jobs need."""
        return None
