"""Strategies on Flower's grids: the fleet of real clients, and Flower's own interface of a strategy.

Importing this makes every :class:`strategies.strategy.Strategy` an instance of Flower's ``Strategy``.
"""

from flwr.serverapp.strategy import Strategy as FlowerStrategy

from strategies.flower.fleet import GridFleet
from strategies.strategy import Strategy

FlowerStrategy.register(Strategy)

__all__ = ["GridFleet"]
