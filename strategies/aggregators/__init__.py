"""How the chosen updates change the model."""

from strategies.aggregators.batch_norm import BatchNormStatistics
from strategies.aggregators.cached_models import CachedModels
from strategies.aggregators.calibrated import CalibratedAggregator
from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.head_models import HeadModels
from strategies.aggregators.lone_reports import LoneReports
from strategies.aggregators.model import ModelAggregator
from strategies.aggregators.optimized import Optimized
from strategies.aggregators.reference_faults import NewestMeta, Overwritten
from strategies.aggregators.robust import FlowerRule
from strategies.aggregators.tier_models import TierModels
from strategies.aggregators.wkafl import WKAFLAggregator

__all__ = [
    "BatchNormStatistics",
    "CachedModels",
    "CalibratedAggregator",
    "FlowerRule",
    "GradientAggregator",
    "HeadModels",
    "LoneReports",
    "ModelAggregator",
    "NewestMeta",
    "Optimized",
    "Overwritten",
    "TierModels",
    "WKAFLAggregator",
]
