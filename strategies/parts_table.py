"""The parts by their configuration names, for free compositions (:mod:`strategies.custom`).

A builder's keyword-only parameters are the part's options; its other parameters are the parts inside it, and their
types say of which kind. A part of a kind that stands beside it in a strategy (an aggregator's scheduler, a policy's
aggregator) is the one of the composition. A class can stand here as its own builder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from strategies.aggregator_parts import (
    cached_models,
    calibrated,
    global_arrays,
    gossip,
    gradient,
    min_norm,
    model,
    optimised,
    overwritten,
    robust,
    singles_apart,
    statistics,
    tier_models,
    wkafl,
)
from strategies.aggregators.dual import DualAveraged
from strategies.fedqs_parts import fedqs_policy, fedqs_weights
from strategies.part import Part
from strategies.parts import Aggregator, ClientPolicy, Scheduler, Weighting
from strategies.policies import Plain
from strategies.policy_parts import (
    control_variates,
    decayed_rate,
    loss_reports,
    merging,
    own_model,
    proximal,
    scaled_rate,
)
from strategies.scheduler_parts import (
    asynchronous,
    buffered,
    lag_tolerant,
    pooled,
    queued,
    synchronous,
    tiered,
)
from strategies.schedulers import Compass
from strategies.technique_parts import (
    adversarial,
    convolution_decay,
    dual_corrected,
    examples_in_order,
    sharpness_aware,
    simplex_classifier,
    tasks_apart,
)
from strategies.weighting_parts import (
    agreement,
    data_size,
    kafl,
    local_steps,
    normalised,
    share_of_all,
    staleness,
    uniform,
)

Builder = Callable[..., Part]

SCHEDULERS: Mapping[str, Builder] = {
    "synchronous": synchronous,
    "asynchronous": asynchronous,
    "buffered": buffered,
    "compass": Compass,
    "pooled": pooled,
    "lag-tolerant": lag_tolerant,
    "tiered": tiered,
    "queued": queued,
}
AGGREGATORS: Mapping[str, Builder] = {
    "gradient": gradient,
    "model": model,
    "optimised": optimised,
    "singles-apart": singles_apart,
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
WEIGHTINGS: Mapping[str, Builder] = {
    "uniform": uniform,
    "data-size": data_size,
    "local-steps": local_steps,
    "share-of-all": share_of_all,
    "staleness": staleness,
    "normalised": normalised,
    "fedqs": fedqs_weights,
    "kafl": kafl,
    "agreement": agreement,
}
POLICIES: Mapping[str, Builder] = {
    "plain": Plain,
    "proximal": proximal,
    "loss-reports": loss_reports,
    "fedqs": fedqs_policy,
    "control-variates": control_variates,
    "own-model": own_model,
    "decayed-rate": decayed_rate,
    "scaled-rate": scaled_rate,
    "merging": merging,
    "sharpness-aware": sharpness_aware,
    "dual-corrected": dual_corrected,
    "tasks-apart": tasks_apart,
    "adversarial": adversarial,
    "curriculum": examples_in_order,
    "simplex-classifier": simplex_classifier,
    "convolution-decay": convolution_decay,
}

KINDS: Mapping[type[Part], tuple[Mapping[str, Builder], str]] = {
    Scheduler: (SCHEDULERS, "buffered"),
    Aggregator: (AGGREGATORS, "gradient"),
    Weighting: (WEIGHTINGS, "uniform"),
    ClientPolicy: (POLICIES, "plain"),
}
"""For each kind of part the table, and the name that is taken where none is given."""
