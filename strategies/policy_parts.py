"""Client policies, with their options, for free compositions (:mod:`strategies.parts_table`)."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from strategies.aggregators.gossip import Gossip
from strategies.parts import Aggregator, ClientPolicy, Scheduler
from strategies.policies import ControlVariates, DecayedRate, LossReports, OwnModel, Proximal, ScaledRate
from strategies.policies.neighbours import Match, NeighbourModels, NormData
from strategies.schedulers import Queued


def own_model() -> ClientPolicy:
    """A client goes on from its own model unless a newer global one exists (KAFL)."""
    return OwnModel()


def proximal(
    *,
    mu: Annotated[float, Param("factor of the proximal term", ge=0)] = 0.01,
    stragglers: Annotated[float, Param("probability that a client runs only some of its epochs", ge=0, le=1)] = 0.0,
) -> ClientPolicy:
    """Clients are held near the model that they were sent, and stragglers do partial work (FedProx)."""
    return Proximal(mu, stragglers)


def loss_reports(
    *,
    batches: Annotated[int, Param("first batches whose losses are reported; 0: an epoch's", ge=0)] = 0,
    mu: Annotated[float | None, Param("factor of a proximal term; the run's if not set", ge=0)] = None,
) -> ClientPolicy:
    """Clients report their first losses, for a selection by score (Oort, HeteRo-Select)."""
    return LossReports(batches, mu)


def control_variates(
    *, share: Annotated[Literal["clients", "weights"], Param("what an update's change counts")] = "clients"
) -> ClientPolicy:
    """Control variates take the clients' drift out of their steps (SCAFFOLD, FedAC)."""
    return ControlVariates(share)


def decayed_rate(
    *,
    factor: Annotated[float, Param("decay per period", gt=0, le=1)] = 0.995,
    period: Annotated[int, Param("local steps of a period", ge=1)] = 100,
) -> ClientPolicy:
    """A client's learning rate falls with the steps that it has done."""
    return DecayedRate(factor, period)


def scaled_rate(scheduler: Scheduler) -> ClientPolicy:
    """Clients that take more steps take smaller ones (FedQueue)."""
    if not isinstance(scheduler, Queued):
        raise ConfigError(
            f"ScaledRate with {type(scheduler).__name__}: it needs 'step-budgets', which none of them has; take "
            "strategy.scheduler.name = 'queued'"
        )
    return ScaledRate(scheduler.rate_factor)


def merging(
    aggregator: Aggregator,
    *,
    match: Annotated[Match, Param("what units are matched by before averaging")] = "activations",
    examples: Annotated[int, Param("examples that activations are taken from, at most", ge=2)] = 256,
    bn_data: Annotated[NormData, Param("whose examples statistics of batch norm are measured on")] = "private",
) -> ClientPolicy:
    """Clients merge their neighbours' models before they train (DIMAT)."""
    if not isinstance(aggregator, Gossip) or aggregator.steps > 0:
        raise ConfigError(
            f"NeighbourModels with {type(aggregator).__name__}: it needs 'neighbours', which none of them has; take "
            "strategy.aggregator.name = 'gossip' with steps = 0"
        )
    return NeighbourModels(aggregator, match, examples, bn_data)
