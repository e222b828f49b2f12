"""Aggregators by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable

from strategies.aggregators.batch_norm import BatchNormStatistics
from strategies.aggregators.cached_models import CachedModels
from strategies.aggregators.calibrated import CalibratedAggregator
from strategies.aggregators.dual import DualAveraged
from strategies.aggregators.gossip import Gossip
from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.lone_reports import LoneReports
from strategies.aggregators.min_norm import MinNormAggregator
from strategies.aggregators.model import ModelAggregator
from strategies.aggregators.optimized import optimised
from strategies.aggregators.reference_faults import NewestMeta, Overwritten
from strategies.aggregators.robust import robust
from strategies.aggregators.tier_models import TierModels
from strategies.aggregators.wkafl import WKAFLAggregator
from strategies.core.kinds import Aggregator

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "gradient": GradientAggregator,
    "model": ModelAggregator,
    "optimised": optimised,
    "singles-apart": LoneReports,
    "statistics": BatchNormStatistics,
    "overwritten": Overwritten,
    "global-arrays": NewestMeta,
    "robust": robust,
    "wkafl": WKAFLAggregator,
    "calibrated": CalibratedAggregator,
    "cached-models": CachedModels,
    "tier-models": TierModels,
    "dual-averaged": DualAveraged,
    "min-norm": MinNormAggregator,
    "gossip": Gossip,
}
