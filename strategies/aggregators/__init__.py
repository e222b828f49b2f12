"""How the chosen updates change the model."""

from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.model import ModelAggregator
from strategies.aggregators.optimized import Optimized

__all__ = ["GradientAggregator", "ModelAggregator", "Optimized"]
