"""Aggregators by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from strategies.aggregators import (
    CachedModels,
    CalibratedAggregator,
    GradientAggregator,
    LoneReports,
    ModelAggregator,
    NewestMeta,
    Optimized,
    Overwritten,
    Robust,
    Statistics,
    TierModels,
    WKAFLAggregator,
)
from strategies.aggregators.dual import DualAveraged
from strategies.aggregators.gossip import Gossip
from strategies.aggregators.min_norm import MinNormAggregator
from strategies.aggregators.robust import RuleName
from strategies.aggregators.server_optimizers import SGD, Adam, AMSGrad, ServerOptimizer, Yogi
from strategies.aggregators.storage import Cache
from strategies.aggregators.topologies import Degree, Topology, TopologyOption
from strategies.core.kinds import Aggregator, Scheduler, Weighting
from strategies.schedulers import LagTolerant, Tiered
from strategies.weightings import Capped
from strategies.weightings.options import WeightBase

ServerRate = Annotated[float, Param("eta_g, the server's step", gt=0)]
Beta = Annotated[float, Param("decay of a moment", ge=0, lt=1)]


def gradient(weighting: Weighting, *, server_rate: ServerRate = 1.0) -> Aggregator:
    """Adds weighted updates to the current model."""
    return GradientAggregator(weighting, server_rate)


def model(weighting: Weighting) -> Aggregator:
    """Averages the clients' models; weights that sum to less than 1 leave the rest to the current model."""
    return ModelAggregator(Capped(weighting))


def optimised(
    base: Aggregator,
    *,
    optimizer: Annotated[Literal["sgd", "adam", "yogi", "amsgrad"], Param("the server's optimiser")] = "sgd",
    server_rate: ServerRate = 1.0,
    momentum: Annotated[float, Param("beta of sgd", ge=0, lt=1)] = 0.9,
    beta1: Beta = 0.9,
    beta2: Beta = 0.99,
    eps: Annotated[float, Param("added to the root", gt=0)] = 1e-3,
) -> Aggregator:
    """Another aggregator proposes a model, and a server optimiser takes the step towards it."""
    kinds: dict[str, Callable[..., ServerOptimizer]] = {"adam": Adam, "yogi": Yogi, "amsgrad": AMSGrad}
    if optimizer == "sgd":
        return Optimized(base, SGD(server_rate, momentum))
    return Optimized(base, kinds[optimizer](server_rate, beta1, beta2, eps))


def robust(
    weighting: Weighting,
    *,
    rule: Annotated[RuleName, Param("Flower's rule")] = "median",
    malicious: Annotated[int, Param("updates of a step that may be malicious", ge=0)] = 0,
    selected: Annotated[int, Param("updates that multikrum averages", ge=1)] = 1,
    trim: Annotated[float, Param("share that trimmed-mean leaves out at either end", ge=0, lt=0.5)] = 0.2,
    clipping_norm: Annotated[float, Param("L2 norm that dp-clip clips to, and dp-adaptive at first", gt=0)] = 1.0,
    noise_multiplier: Annotated[float, Param("noise over the clipping norm of dp-clip and dp-adaptive", ge=0)] = 0.0,
    quantile: Annotated[float, Param("dp-adaptive: share of the updates no longer than its norm", ge=0, le=1)] = 0.5,
    clipping_rate: Annotated[float, Param("dp-adaptive: rate of its norm, per step", gt=0)] = 0.2,
) -> Aggregator:
    """Flower's robust rules, or its clipping for differential privacy."""
    return Robust(
        rule,
        weighting,
        malicious=malicious,
        selected=selected,
        trim=trim,
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        quantile=quantile,
        clipping_rate=clipping_rate,
    )


def wkafl(
    *,
    server_rate: ServerRate = 1.0,
    rate_decay: Annotated[float, Param("decay of the step with the least staleness", ge=0)] = 0.01,
    momentum: Annotated[float, Param("share of the last direction in each update", ge=0, lt=1)] = 0.1,
    norm_bound: Annotated[float, Param("L2 norm to which updates are clipped", gt=0)] = 10.0,
    cosine_bound: Annotated[float, Param("least agreement of an update that counts", ge=-1, lt=1)] = 0.3,
    sharpness: Annotated[float, Param("factor of the cosine in the exponential", ge=0)] = 50.0,
    late_from: Annotated[int, Param("version at which the second stage begins", ge=0)] = 3500,
    late_bound: Annotated[float, Param("second stage: norms over the estimate's, at most", gt=0)] = 5.0,
) -> Aggregator:
    """Updates are picked and weighed by their agreement with a staleness-weighted estimate (WKAFL)."""
    return WKAFLAggregator(
        server_rate,
        rate_decay,
        momentum=momentum,
        norm_bound=norm_bound,
        cosine_bound=cosine_bound,
        sharpness=sharpness,
        late_from=late_from,
        late_bound=late_bound,
    )


def lone_reports(single: Aggregator, group: Aggregator) -> Aggregator:
    """A client's lone report goes to one aggregator, a group's step to another."""
    return LoneReports(single, group)


def global_arrays(base: Aggregator) -> Aggregator:
    """Feedback bits and similarities are those of the clients' newest jobs (a fault of FedQS's authors' code)."""
    return NewestMeta(base)


def overwritten(base: Aggregator) -> Aggregator:
    """Updates that wait are overwritten by what their clients train next (a fault of FedQS's authors' code)."""
    return Overwritten(base)


def statistics(
    base: Aggregator,
    *,
    rule: Annotated[
        Literal["group_mean", "replace_single", "average", "keep_server"], Param("what is set apart")
    ] = "group_mean",
) -> Aggregator:
    """Batch-norm statistics by a rule of their own."""
    return Statistics(base, rule)


def cached_models(
    scheduler: Scheduler, *, weight_base: WeightBase = "data_size", cache: Cache = "single"
) -> Aggregator:
    """The mean of all clients' latest models, those included that have not reported (SAFA)."""
    if isinstance(scheduler, LagTolerant):
        return CachedModels(lambda: scheduler.deprecated, weight_base=weight_base, storage=cache)
    return CachedModels(weight_base=weight_base, storage=cache)


def tier_models(weighting: Weighting, scheduler: Scheduler) -> Aggregator:
    """A model for each tier, and their mean in which slow tiers have the fast ones' counts (FedAT)."""
    if not isinstance(scheduler, Tiered):
        raise ConfigError(
            f"TierModels with {type(scheduler).__name__}: it needs 'tiers', which none of them has; take "
            "strategy.scheduler.name = 'tiered'"
        )
    return TierModels(weighting, scheduler.tier_of, lambda: scheduler.tiers)


def calibrated(weighting: Weighting, *, server_rate: ServerRate = 1.0, cache: Cache = "single") -> Aggregator:
    """Updates are calibrated with the last ones of all clients (CA2FL)."""
    return CalibratedAggregator(weighting, server_rate, cache)


def min_norm(weighting: Weighting, *, server_rate: ServerRate = 1.0) -> Aggregator:
    """The backbone moves along the shortest common direction of all tasks' changes (FSMGDA)."""
    return MinNormAggregator(weighting, server_rate)


def gossip(
    *,
    steps: Annotated[int, Param("gossip steps of a round; 0 where clients merge models themselves", ge=0)] = 1,
    topology: TopologyOption = "ring",
    degree: Degree = 4,
    mix_order: Annotated[Literal["after", "before"], Param("a round mixes after it has trained, or before")] = "after",
    start: Annotated[Literal["one", "own"], Param("all start from one model, or each from one of its own")] = "one",
) -> Aggregator:
    """Every client has a model, and mixes it with its neighbours' (DFedSAM; with policy = "merging" DIMAT)."""
    return Gossip(Topology(topology, degree), steps, mix_order, start)


AGGREGATORS: Mapping[str, Callable[..., Aggregator]] = {
    "gradient": gradient,
    "model": model,
    "optimised": optimised,
    "singles-apart": lone_reports,
    "statistics": statistics,
    "overwritten": overwritten,
    "global-arrays": global_arrays,
    "robust": robust,
    "wkafl": wkafl,
    "calibrated": calibrated,
    "cached-models": cached_models,
    "tier-models": tier_models,
    "dual-averaged": DualAveraged,
    "min-norm": min_norm,
    "gossip": gossip,
}
