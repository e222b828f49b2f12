"""The nouns that server, clients and world share.

An order goes down, an update comes up, the server reacts to events with decisions. Everything here is a plain value:
no clock, disk, network, Ray or Flower. Times are seconds of the fleet's clock (virtual in a simulation), sizes are
bytes, and every vector is flat float32 in the order of :class:`fedmtl.parameters.ParameterLayout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.settings import Balancing as Balancing
from fedmtl.settings import Compression as Compression
from fedmtl.settings import TrainSettings as TrainSettings


class JobKey(NamedTuple):
    """One job: the client and the client's own job number (0, 1, 2, ...)."""

    client: int
    job: int


@dataclass(frozen=True, slots=True, eq=False)
class GlobalModel:
    """A version of the global model. The vector is never written to after its version was published."""

    version: int
    vector: Tensor
    layout: ParameterLayout


@dataclass(frozen=True, slots=True, eq=False)
class TrainOrder:
    """What the server asks of a client.

    Attributes
    ----------
    client, job
        Whom, and the number of the client's job, counted from 0; together the key of the job.
    base
        The model to start from.
    steps
        Local steps to run, or None for as many as the settings say.
    settings
        How to train.
    task_factors
        A factor per task for the shared gradient (in the order of the layout's heads), or None for ones.
    balancing
        How the client balances its tasks within a step.
    policy
        Name of the client's half of the policy (see :mod:`clients.policies`).
    terms, vectors
        What that half needs: scalars (8 bytes each when sent), and flat vectors (4 bytes per entry).
    seed
        Seed of the job's batches and other draws.
    constants
        What the policy's client half needs and every order of the run has alike; no traffic is counted for it.
    compression
        How the update is to be compressed; None: it goes up as it is.
    transfers
        How many models travel down and up with the job: one each way, unless clients exchange models with each other.
    """

    client: int
    job: int
    base: GlobalModel
    steps: int | None
    settings: TrainSettings
    task_factors: tuple[float, ...] | None
    balancing: Balancing
    policy: str
    terms: Mapping[str, float]
    vectors: Mapping[str, Tensor]
    seed: int
    constants: Mapping[str, Any] = field(default_factory=dict)
    compression: Compression | None = None
    transfers: tuple[int, int] = (1, 1)

    @property
    def key(self) -> JobKey:
        """Client and job number."""
        return JobKey(self.client, self.job)


@dataclass(slots=True, eq=False)
class Update:
    """What a client sends back. Nobody writes to `delta` after the upload.

    Attributes
    ----------
    client, job, base_version
        The job and the version it started from.
    delta
        ``w_end - w_start``, flat, float32, shape [P]: it points in the direction of progress.
    examples
        Training examples of the client's shard.
    steps
        Local steps that really ran; 0 only where short batches are dropped.
    tasks
        Indices of the tasks that the client owns.
    task_losses, mean_task_weights, task_traces
        For each owned task: mean training loss over the job's steps, mean weight that the balancer gave it, and mean
        NTK statistic (empty where the balancer measures none).
    task_sketches
        For each owned task a sketch of its mean gradient at the model that was sent (:mod:`fedmtl.balancing.sketch`),
        shape [tasks, m], float32 on the CPU; None where the balancer makes none.
    learning_rate, momentum
        What the client's half of the policy chose.
    failure
        Why the training failed (a loss was not finite, say), or None; a failed update is rejected.
    terms, vectors
        Further scalars and flat vectors that the policy's client half sends up; what it has not measured is absent.
    dispatched_at, arrived_at
        When the order was sent and the update received, seconds of the fleet's clock.
    bytes_up, bytes_down
        Traffic of the job.
    arrived_version
        The server's version when it arrived; the server sets it.
    """

    client: int
    job: int
    base_version: int
    delta: Tensor
    examples: int
    steps: int
    tasks: tuple[int, ...] = (0,)
    task_losses: tuple[float, ...] = ()
    mean_task_weights: tuple[float, ...] = ()
    task_traces: tuple[float, ...] = ()
    task_sketches: Tensor | None = None
    learning_rate: float = 0.0
    momentum: float = 0.0
    failure: str | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    dispatched_at: float = 0.0
    arrived_at: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    arrived_version: int = 0

    @property
    def key(self) -> JobKey:
        """Client and job number."""
        return JobKey(self.client, self.job)

    @property
    def duration(self) -> float:
        """Seconds from the sending of the order to the arrival of the update."""
        return self.arrived_at - self.dispatched_at


@dataclass(frozen=True, slots=True)
class Arrival:
    """An update arrived."""

    time: float
    update: Update


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time that the strategy asked to be woken at has come."""

    time: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A client went away; an order it was working on will not be answered."""

    time: float
    client: int
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A client came, or came back, and may be given an order."""

    time: float
    client: int


Event = Arrival | Deadline | Lost | Joined


@dataclass(frozen=True, slots=True)
class Assignment:
    """A scheduler's choice: this client trains next, for so many steps (None: as many as the settings say)."""

    client: int
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A scheduler's answer to an event.

    Attributes
    ----------
    aggregate
        The jobs whose updates are aggregated now, in order; empty for no aggregation.
    trigger
        Why, in one word, such as ``"full"``, ``"deadline"``, ``"all"``, ``"single"``.
    late
        Those of `aggregate` that came after their cut-off.
    rejected
        Jobs whose updates will never be applied, each with the reason.
    assignments
        Whom to send an order to next; sent after the aggregation, so with the new model.
    """

    aggregate: tuple[JobKey, ...] = ()
    trigger: str = ""
    late: frozenset[JobKey] = frozenset()
    rejected: tuple[tuple[JobKey, str], ...] = ()
    assignments: tuple[Assignment, ...] = ()


NOTHING = Decision()


@dataclass(frozen=True, slots=True, eq=False)
class Aggregation:
    """A server step that was taken, for the record.

    Attributes
    ----------
    version
        The version that it made.
    time, trigger
        When and why.
    updates, weights, staleness
        The updates that went in, the weight each had, and the versions each was behind.
    late
        Jobs among them that came after their cut-off.
    """

    version: int
    time: float
    trigger: str
    updates: tuple[Update, ...]
    weights: tuple[float, ...]
    staleness: tuple[int, ...]
    late: frozenset[JobKey]


@dataclass(frozen=True, slots=True, eq=False)
class Rejection:
    """An update that was not applied, and why, for the record."""

    time: float
    update: Update
    reason: str
