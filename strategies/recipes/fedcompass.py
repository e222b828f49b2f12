"""FedCompass: step counts are fitted to the clients' speeds, so that they arrive, and are aggregated, in groups.

"FedCompass: Efficient Cross-Silo Federated Learning on Heterogeneous Client Devices using a Computing Power Aware
Scheduler" (ICLR 2024, arXiv 2309.14675). Groups, step counts and cut-offs: :mod:`strategies.schedulers.compass`. When
the updates B (a group's and all late ones, or one client's first) are applied, with vectors of shape [P] and the
staleness u_j of each update in versions,

    w <- w + sum_{j in B} alpha s(u_j) p_j Delta_j             aggregation = "gradient"
    w <- (1 - sum_j a_j) w + sum_j a_j w_j                     "model", a_j = alpha s(u_j) p_j, their sum at most 1

where ``p_j = 1/m`` with m clients in all, or ``n_j / N`` of all examples, and s is ``(1 + u)^-a`` or another function
of :mod:`strategies.weightings.staleness`. Variants, by the authors' code (the paper's text was not available; they are
taken to be its FedCompass+ and FedCompass-N):

    momentum      D = sum_j alpha s p Delta_j,  v <- beta v + D,  w <- w + v    single reports bypass v
    normalised    Delta_j is multiplied by Q_eff / Q_j,  Q_eff = sum_j p_j Q_j / sum_j p_j

Steps are counted per order and not per epoch: fit q_max to the shards, a step being one batch.

Differences from the authors' code: stale updates lose weight (their exponent has the wrong sign; staleness_sign = "up"
brings it back for study), late reports do not overwrite each other and count once, statistics of batch norm are
averaged with the weights of the updates (what these leave of 1 is the server's), and what the scheduler's docstring
lists. A client's own statistics cannot be kept apart, for
clients keep no model between orders. A head with few owners is weighted against all clients, like the backbone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from fedmtl.errors import ConfigError
from strategies.aggregators import GradientAggregator, LoneReports, ModelAggregator, Optimized
from strategies.aggregators.batch_norm import GroupRule, batch_norm_apart
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, TaskWeights, Weighting
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import DecayedRate, Plain
from strategies.recipes.papers import method
from strategies.schedulers import Compass
from strategies.schedulers.options import QMax
from strategies.weightings import DataSize, Discounted, Normalised, ShareOfAll, Uniform
from strategies.weightings.staleness import EXPONENT, HINGE_START, StalenessAt, StalenessFunction

_CODE = "authors' code"


@method(
    "semi-asynchronous",
    "FedCompass: Efficient Cross-Silo Federated Learning on Heterogeneous Client Devices using a Computing Power "
    "Aware Scheduler",
    arxiv="2309.14675",
)
def fedcompass(
    task_weights: TaskWeights | None = None,
    *,
    variant: Annotated[
        Literal["plain", "momentum", "normalised"], Param("FedCompass, FedCompass+ or FedCompass-N", source="paper")
    ] = "plain",
    q_max: QMax = 100,
    aggregation: Annotated[
        Literal["gradient", "model"], Param("add updates to the model, or average models", source="paper")
    ] = "gradient",
    alpha: Annotated[float, Param("weight of fresh updates of all clients", gt=0, le=1, source=_CODE)] = 0.9,
    staleness: StalenessFunction = "polynomial",
    a: Annotated[float, EXPONENT.by(_CODE)] = 0.5,
    b: Annotated[float, HINGE_START.by(_CODE)] = 4.0,
    staleness_sign: Annotated[
        Literal["down", "up"], Param("up: stale updates gain weight, as in the old code, for its study")
    ] = "down",
    staleness_at: StalenessAt = "apply",
    weights: Annotated[
        Literal["equal", "size"], Param("p_j: 1/m, or n_j/N by examples (legacy code)", source=_CODE)
    ] = "equal",
    server_momentum: Annotated[float, Param("beta of variant = 'momentum'", ge=0, lt=1, source=_CODE)] = 0.9,
    client_rate: Annotated[
        Literal["constant", "decay"], Param("decay: learning rate times 0.995 per q_max steps (legacy code)")
    ] = "constant",
    statistics: GroupRule = "weighted_mean",
    **compass: Annotated[Any, OptionsOf(Compass)],
) -> FlowerStrategy:
    """FedCompass: local steps fitted to speed, so that clients arrive in groups; each group is a server step."""
    if staleness_sign == "up" and staleness != "polynomial":
        raise ConfigError(f"staleness_sign = 'up' is a fault of the polynomial: staleness = {staleness!r} has no sign")
    q: Weighting = Uniform() if weights == "equal" else DataSize()
    if variant == "normalised":
        q = Normalised(q)
    share = ShareOfAll(q, by="clients" if weights == "equal" else "examples")
    a = a if staleness_sign == "down" else -a
    weighting = Discounted(share, function=staleness, a=a, b=b, factor=alpha, at=staleness_at)
    aggregator: Aggregator = GradientAggregator(weighting)
    if aggregation == "model":
        aggregator = ModelAggregator(weighting)
    if variant == "momentum":
        aggregator = LoneReports(aggregator, Optimized(aggregator, SGD(momentum=server_momentum)))
    aggregator = batch_norm_apart(aggregator, statistics)
    policy = Plain() if client_rate == "constant" else DecayedRate(factor=0.995, period=q_max)
    return FlowerStrategy(Compass(q_max=q_max, **compass), aggregator, policy, task_weights, name="fedcompass")
