"""How the chosen updates change the model."""

from strategies.aggregators.calibrated import CalibratedAggregator
from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.model import ModelAggregator
from strategies.aggregators.optimized import Optimized
from strategies.aggregators.singles import SinglesApart
from strategies.aggregators.statistics import Statistics
from strategies.aggregators.wkafl import WKAFLAggregator

__all__ = [
    "CalibratedAggregator",
    "GradientAggregator",
    "ModelAggregator",
    "Optimized",
    "SinglesApart",
    "Statistics",
    "WKAFLAggregator",
]
