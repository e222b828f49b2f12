"""The kinds of parts that a strategy is made of.

Each is plain Python over values: no clock (it is handed `now`), no thread, no disk, no network. Each keeps its state in
attributes that `state_dict` returns and `load_state_dict` takes: a nested dictionary of numbers, strings, lists and
tensors. What they have in common, and how they say what they need of each other, is in :mod:`strategies.core.part`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import NOTHING, Balancing, Decision, GlobalModel, JobKey, Rejection, TrainSettings, Update
from strategies.core.ledger import Ledger
from strategies.core.part import Part


class Scheduler(Part, ABC):
    """Decides who trains, for how many steps, and when the server aggregates.

    A scheduler sees updates but keeps only their keys; the strategy keeps the updates themselves.
    """

    @abstractmethod
    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """The first orders, to the clients that are there at the start."""

    @abstractmethod
    def on_update(self, update: Update, now: float) -> Decision:
        """A valid update arrived."""

    def on_deadline(self, now: float) -> Decision:
        """The time of `next_deadline` has come."""
        return NOTHING

    def next_deadline(self) -> float | None:
        """When the scheduler wants to be woken, if it does."""
        return None

    @abstractmethod
    def on_idle(self, client: int, now: float) -> Decision:
        """The client is free without having delivered: its update was rejected, or it joined (again)."""

    @abstractmethod
    def on_lost(self, client: int, now: float) -> Decision:
        """The client is gone; the order it had, if any, will not be answered."""

    def finish(self, now: float) -> Decision:
        """The run is over: a last server step of updates that are still kept, if any. It gives no orders."""
        return NOTHING


@dataclass(frozen=True, slots=True)
class Reaction:
    """The strategy's answer to an event: the scheduler's decision, and the updates that were turned down."""

    decision: Decision
    rejections: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a server step starts from.

    Attributes
    ----------
    model
        The newest model; its version is still the one before the step.
    updates
        The updates that go in, in order; a client may occur twice.
    bases
        For each version that an update started from, that version's vector; empty unless the aggregator asks for them.
    trigger, late
        From the scheduler's decision.
    ledger
        It already counts these updates as aggregated.
    """

    model: GlobalModel
    updates: Sequence[Update]
    bases: Mapping[int, Tensor]
    trigger: str
    late: frozenset[JobKey]
    ledger: Ledger


class Aggregator(Part, ABC):
    """Decides how the chosen updates change the model.

    Attributes
    ----------
    averages_models
        Whether models are averaged, so that a stale update pulls the model back to where it started from, or updates
        are added.
    """

    averages_models: bool = False

    @abstractmethod
    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The next vector (a new one, shape [P]), and the weight that each update had."""

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """What the client trains next: the newest model, or one of its own of the same version."""
        return model

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """How many models travel down and up with the client's next job."""
        return (1, 1)

    def own_models(self) -> Mapping[int, Tensor]:
        """The clients' own models, flat vectors of shape [P], where they have any."""
        return {}


class Weighting(Part, ABC):
    """Decides the weight of each update in an aggregation."""

    def look(self, step: Step) -> None:
        """See a whole server step before being asked for its weights, which happens once or several times.

        For rules that depend on the vectors. A rule that asks another one lets it look as well.
        """
        return None

    @abstractmethod
    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """A weight for each update; `version` is the server's before the aggregation."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a policy adds to an order."""

    settings: TrainSettings
    terms: Mapping[str, float]
    vectors: Mapping[str, Tensor]


class ClientPolicy(Part, ABC):
    """Decides what each client is asked to do: the server's half of a policy.

    Attributes
    ----------
    name
        Selects the client's half in :mod:`clients.policies`.
    constants
        What that half needs and every order of the run has alike.
    reported
        The vectors, of shape [P], that it sends up; an update without them is rejected.
    """

    name: str = "plain"
    constants: Mapping[str, Any] = MappingProxyType({})
    reported: tuple[str, ...] = ()

    def initial(self, model: GlobalModel, seed: int) -> GlobalModel:
        """The model that a run starts from, given the one that was drawn for it."""
        return model

    @abstractmethod
    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """What the client's next order says."""

    def fault(self, update: Update) -> str | None:
        """Why what a client says cannot be true, so that its update must not be applied, or None."""
        return None

    def compression(self, client: int, version: int) -> Mapping[str, Any]:
        """Options of the compressor, if there is one, that are a client's own in an order from this version."""
        return {}

    def on_weighted(self, updates: Sequence[Update], weights: Sequence[float]) -> None:
        """A server step is being taken with these weights; `on_aggregated` follows."""
        return None

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """A server step was taken."""
        return None


class Plain(ClientPolicy):
    """Clients train with the run's settings."""

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The run's settings, as they are."""
        return Instruction(settings, {}, {})


class TaskWeights(Part, ABC):
    """Decides how tasks are weighted, within a client's step and across clients."""

    @property
    def balancing(self) -> Balancing:
        """How a client balances its tasks within a step."""
        return Balancing()

    def adjust(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """The parts of the strategy that carries these weights: others, where weighing needs more than a factor."""
        return aggregator, policy

    @abstractmethod
    def weights(self) -> tuple[float, ...] | None:
        """A factor per task that is sent with every order; None for ones."""

    def fault(self, update: Update, layout: ParameterLayout) -> str | None:
        """Why an update lacks what these weights ask of clients, so that it must not be applied, or None."""
        return None

    def on_aggregated(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> None:
        """A server step was taken with these weights."""
        return None


class Equal(TaskWeights):
    """Every task's loss has weight 1, on every client."""

    def weights(self) -> None:
        """None: a factor of 1 for every task."""
        return None
