"""How the chosen updates change the model."""

from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.model import ModelAggregator

__all__ = ["GradientAggregator", "ModelAggregator"]
